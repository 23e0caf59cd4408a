/* linked BLOCKS ORDER: a list of BLOCKS blocks of 24 to 190 bytes, alive at the end, linked as they were "allocated" or
   "shuffled". Last prints the time (CLOCK_MONOTONIC, nanoseconds) and its resident bytes: what follows is the end of
   the process and whatever a leak checker does there. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct block {
  struct block *next;
};

struct block *first;

static uint64_t next_random(uint64_t *state) { /* xorshift64* */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 2685821657736338717ull;
}

static long resident(void) {
  long pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  if (!statm || fscanf(statm, "%*d %ld", &pages) != 1) return 0;
  fclose(statm);
  return pages * sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv) {
  size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000000;
  int shuffled = argc > 2 && strcmp(argv[2], "shuffled") == 0;
  uint64_t seed = 88172645463325252ull;
  struct block **blocks = malloc(count * sizeof *blocks);
  if (!blocks || count == 0) return 1;
  for (size_t i = 0; i < count; i++) {
    blocks[i] = malloc(24 + next_random(&seed) % 167); /* 107 bytes: 10 million are 1 GiB */
    if (!blocks[i]) return 1;
  }
  for (size_t i = count; shuffled && i > 1; i--) {
    size_t other = next_random(&seed) % i;
    struct block *swapped = blocks[i - 1];
    blocks[i - 1] = blocks[other];
    blocks[other] = swapped;
  }
  for (size_t i = 0; i < count; i++) blocks[i]->next = i + 1 < count ? blocks[i + 1] : NULL;
  first = blocks[0];
  free(blocks);
  struct timespec now;
  long bytes = resident();
  clock_gettime(CLOCK_MONOTONIC, &now);
  printf("%lld %ld\n", now.tv_sec * 1000000000ll + now.tv_nsec, bytes);
  fflush(stdout);
  return 0;
}
