/* A signal handler ends its thread with pthread_exit while the thread maps memory. Then 100 told calls by the main thread.
   Ends with 0. */
#include "oracle.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

static atomic_int running;

static void handler(int signal) {
  (void)signal;
  pthread_exit(NULL);
}

static void *work(void *argument) {
  atomic_store(&running, 1);
  for (;;) {
    void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(mapping, 4096);
  }
  return argument;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 100;
  struct sigaction action = {.sa_handler = handler};
  if (sigaction(SIGUSR1, &action, NULL)) return 1;
  for (int i = 0; i < count; i++) {
    atomic_store(&running, 0);
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL)) return 1;
    while (!atomic_load(&running)) sched_yield();
    if (pthread_kill(thread, SIGUSR1) || pthread_join(thread, NULL)) return 1;
  }
  oracle_open();
  for (int i = 0; i < 100; i++) told_free(told_malloc(20001));
  return 0;
}
