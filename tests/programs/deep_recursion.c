/* A stack that overflows, and a handler on an alternate stack that allocates and leaves by exit, as crash reporters do. Ends
   with 42. Events: one malloc for each level, and the handler's malloc of 20042. */
#include "oracle.h"

#include <signal.h>
#include <sys/resource.h>

static void handler(int signal) {
  (void)signal;
  free(malloc(20042));
  exit(42);
}

#pragma GCC diagnostic ignored "-Winfinite-recursion"
__attribute__((noinline)) static int deeper(volatile char *above) {
  volatile char frame[3000];
  frame[0] = above[0];
  void *block = malloc(24);
  int sum = deeper(frame) + frame[0];
  free(block);
  return sum;
}

int main(void) {
  struct rlimit limit = {.rlim_cur = 256 * 1024, .rlim_max = RLIM_INFINITY};
  getrlimit(RLIMIT_STACK, &limit);
  limit.rlim_cur = 512 * 1024;
  if (setrlimit(RLIMIT_STACK, &limit)) return 1;
  stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  if (!stack.ss_sp || sigaltstack(&stack, NULL) || sigaction(SIGSEGV, &action, NULL)) return 1;
  return deeper("");
}
