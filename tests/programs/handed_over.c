/* handed_over ROUNDS: two threads, each with an arena of its own. The one makes blocks and frees them itself for a while,
   and now and then hands one over to the other, which waits for it and frees it at once. Then they change places: what was
   the one's alone is then both's. Events: ROUNDS blocks of 700 bytes are handed over each way. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

static _Atomic(void *) box[2];
static long rounds;

/* Waits for the box to be full or empty; lets others run when that takes long. */
static void *await(int way, int full) {
  for (int spins = 1;; spins++) {
    void *block = atomic_load_explicit(&box[way], memory_order_acquire);
    if ((block != NULL) == full) return block;
    if (spins % 10000 == 0) sched_yield();
  }
}

static void give(int way, long round) {
  for (long i = 0; i < round % 8; i++) {
    char *volatile own = malloc(100 + i);
    own[0] = 1;
    free(own);
  }
  char *block = malloc(700);
  block[0] = 1;
  atomic_store_explicit(&box[way], block, memory_order_release);
  await(way, 0);
}

static void take(int way) {
  free(await(way, 1));
  atomic_store_explicit(&box[way], NULL, memory_order_release);
}

static void *work(void *argument) {
  int me = argument != NULL;
  for (int way = 0; way < 2; way++)
    for (long round = 0; round < rounds; round++) {
      if (way == me)
        give(way, round);
      else
        take(way);
    }
  return NULL;
}

int main(int argc, char **argv) {
  rounds = argc > 1 ? atol(argv[1]) : 1000;
  pthread_t threads[2];
  for (int i = 0; i < 2; i++)
    if (pthread_create(&threads[i], NULL, work, i ? &rounds : NULL)) return 1;
  for (int i = 0; i < 2; i++)
    if (pthread_join(threads[i], NULL)) return 1;
  return 0;
}
