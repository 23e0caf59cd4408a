/* A handler jumps out of whatever it interrupted, mapping calls and memspy's own code included, `jump_out JUMPS` times. Then
   1000 told allocations: nothing may be stuck, and each of those calls must be in the log. Ends with 0. */
#include "oracle.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

static sigjmp_buf back;

static void handler(int signal) {
  (void)signal;
  siglongjmp(back, 1);
}

int main(int argc, char **argv) {
  volatile int jumps = 0;
  int wanted = argc > 1 ? atoi(argv[1]) : 300;
  struct sigaction action = {.sa_handler = handler};
  if (sigaction(SIGALRM, &action, NULL)) return 1;
  if (sigsetjmp(back, 1)) jumps++;
  if (jumps < wanted) {
    struct itimerval once = {{0, 0}, {0, 50 + jumps % 200}};
    if (setitimer(ITIMER_REAL, &once, NULL)) return 1;
    for (;;) {
      void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      munmap(mapping, 4096);
    }
  }
  oracle_open();
  for (int i = 0; i < 1000; i++) told_free(told_malloc(20000 + i));
  return 0;
}
