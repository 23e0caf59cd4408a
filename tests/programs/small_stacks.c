/* Allocation where there is hardly any stack: a thread of PTHREAD_STACK_MIN bytes, and a signal handler on the smallest
   alternate stack that the kernel allows plus `small_stacks BYTES`. Ends with 0; too much stack taken ends with SIGSEGV.
   Events: in each of the two places a malloc(20001), a calloc(1, 20002), a realloc to 300003, an mmap of 4096, its munmap,
   two frees. */
#include "oracle.h"

#include <pthread.h>
#include <signal.h>
#include <sys/auxv.h>

static void *volatile blocks[3];

static void calls(void) {
  blocks[0] = malloc(20001);
  blocks[1] = calloc(1, 20002);
  blocks[2] = realloc(blocks[1], 300003);
  void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(mapping, 4096);
  free(blocks[0]);
  free(blocks[2]);
}

static void *thread(void *argument) {
  calls();
  return argument;
}

static void handler(int signal) {
  (void)signal;
  calls();
}

int main(int argc, char **argv) {
  size_t margin = argc > 1 ? (size_t)atol(argv[1]) : 2048;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  /* a stack of our own, filled, with an inaccessible page below it */
  size_t size = (size_t)sysconf(_SC_THREAD_STACK_MIN);
  if (size < 16384) size = 16384;
  char *area = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (area == MAP_FAILED || mprotect(area, 4096, PROT_NONE)) return 1;
  if (pthread_attr_setstack(&attributes, area + 4096, size)) return 1;
  pthread_t id;
  if (pthread_create(&id, &attributes, thread, NULL) || pthread_join(id, NULL)) return 1;

  size_t least = getauxval(AT_MINSIGSTKSZ);
  least = (least + margin + 15) / 16 * 16;
  char *alternate = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (alternate == MAP_FAILED || mprotect(alternate, 4096, PROT_NONE)) return 1;
  stack_t stack = {.ss_sp = alternate + 4096, .ss_size = least};
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
  if (sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL)) return 1;
  return raise(SIGUSR1);
}
