/* Threads that do nothing but allocate are cancelled (`cancel COUNT`); none of malloc, free, mmap and munmap is a
   cancellation point, so each ends only at its own usleep, with its work whole. Then 100 told calls. Ends with 0;
   a lock that a cancelled thread took along would hang. */
#include "oracle.h"

#include <pthread.h>
#include <stdatomic.h>

static atomic_int running;

struct balance {
  long taken, given;
};

static void *work(void *argument) {
  struct balance *balance = argument;
  atomic_store(&running, 1);
  for (;;) {
    for (int i = 0; i < 200; i++) {
      void *block = malloc(100 + i);
      balance->taken++;
      free(block);
      balance->given++;
    }
    usleep(50); /* a cancellation point, as pthread_testcancel is; it keeps the log short */
  }
  return NULL;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 100;
  for (int i = 0; i < count; i++) {
    struct balance balance = {0, 0};
    atomic_store(&running, 0);
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, &balance)) return 1;
    while (!atomic_load(&running)) sched_yield();
    if (pthread_cancel(thread) || pthread_join(thread, NULL)) return 1;
    if (balance.taken != balance.given) return 3; /* cancelled inside malloc or free */
  }
  oracle_open();
  for (int i = 0; i < 100; i++) told_free(told_malloc(20001));
  return 0;
}
