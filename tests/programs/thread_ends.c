/* Allocation at the very end of a thread: destructors of thread-specific data that take and free memory in each of their four
   rounds, in a thread that returns, one that calls pthread_exit, and a detached one. Events: those of the oracle. */
#include "oracle.h"

#include <pthread.h>
#include <semaphore.h>

static pthread_key_t key;
static sem_t detached_done;

struct rounds {
  int left;
  int detached;
};

static void destroy(void *argument) {
  struct rounds *rounds = argument;
  told_free(told_malloc(20100 + rounds->left));
  if (--rounds->left) {
    pthread_setspecific(key, rounds);
    return;
  }
  int detached = rounds->detached;
  told_free(rounds);
  if (detached) sem_post(&detached_done);
}

static void *work(void *how) {
  struct rounds *rounds = told_malloc(sizeof *rounds);
  *rounds = (struct rounds){.left = 4, .detached = how == (void *)2};
  pthread_setspecific(key, rounds);
  if (how) pthread_exit(NULL);
  return NULL;
}

int main(void) {
  oracle_open();
  if (pthread_key_create(&key, destroy) || sem_init(&detached_done, 0, 0)) return 1;
  pthread_t thread;
  for (long how = 0; how < 3; how++) {
    if (pthread_create(&thread, NULL, work, (void *)how)) return 1;
    if (how < 2) pthread_join(thread, NULL);
    else pthread_detach(thread);
  }
  while (sem_wait(&detached_done)) {}
  return 0;
}
