/* churn THREADS N: N replacements of random blocks among 10,000 slots, shared out over the threads; each second
   replacement is also resized by realloc. A live set that a heap profiler has to keep up with. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { SLOTS = 10000 };

struct share {
  uint64_t seed;
  long replacements;
};

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717ull;
}

static void *churn(void *argument) {
  struct share *share = argument;
  char **slots = calloc(SLOTS, sizeof *slots);
  if (!slots) return argument;
  for (long i = 0; i < share->replacements; i++) {
    uint64_t random = next_random(&share->seed);
    char **slot = &slots[random % SLOTS];
    size_t size = 16 + (random >> 32) % 240;
    free(*slot);
    *slot = malloc(size);
    if (i % 2) *slot = realloc(*slot, size * 2);
    if (!*slot) return argument;
    **slot = 1;
  }
  for (int i = 0; i < SLOTS; i++) free(slots[i]);
  free(slots);
  return NULL;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1;
  long replacements = argc > 2 ? atol(argv[2]) : 1000000;
  if (count < 1 || count > 64) return 2;
  pthread_t threads[64];
  struct share shares[64];
  if (count == 1) { /* on the main thread, as most programs work */
    shares[0] = (struct share){.seed = 88172645463325252ull, .replacements = replacements};
    return churn(&shares[0]) != NULL;
  }
  for (int i = 0; i < count; i++) {
    shares[i] = (struct share){.seed = 88172645463325252ull + i, .replacements = replacements / count};
    if (pthread_create(&threads[i], NULL, churn, &shares[i])) return 1;
  }
  int failed = 0;
  for (int i = 0; i < count; i++) {
    void *result;
    pthread_join(threads[i], &result);
    failed |= result != NULL;
  }
  return failed;
}
