/* Four threads (`live_set THREADS STEPS`) allocate, resize, hand blocks to each other and free at random, mappings too.
   At the end the oracle lists what is in use: {"live":"0x…","size":…} for each block, {"mapped":"0x…","size":…} for each
   page range. Replaying the log must give exactly that set: no event may be lost, doubled or out of order. */
#include "oracle.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 512, PAGES = 64, PAGE = 4096, MOST = 16 };

struct slot {
  atomic_int taken;
  void *block;
  size_t size;
};

static struct slot slots[SLOTS];
static long steps;

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void resize(struct slot *slot, size_t size) {
  void *block = size % 3 ? realloc(slot->block, size) : reallocarray(slot->block, size, 1);
  if (!block) _exit(1);
  slot->block = block;
  slot->size = size;
}

static void take(struct slot *slot, uint64_t random) {
  size_t size = 1 + (random >> 20) % (random % 64 == 0 ? 300000 : 700);
  switch (random >> 50 & 7) {
    case 0: slot->block = calloc(1, size); break;
    case 1: slot->block = aligned_alloc(64, size); break;
    case 2: slot->block = memalign(256, size); break;
    case 3: slot->block = realloc(NULL, size); break;
    case 4: if (posix_memalign(&slot->block, 128, size)) _exit(1); break;
    default: slot->block = malloc(size);
  }
  if (!slot->block) _exit(1);
  slot->size = size;
}

static void drop(struct slot *slot, int by_realloc) {
  if (by_realloc) {
    if (realloc(slot->block, 0)) _exit(1);
  } else {
    free(slot->block);
  }
  slot->block = NULL;
}

/* One thread's pages: an area of its own, mapped, unmapped and remapped piece by piece. */
struct area {
  char *base;
  char mapped[PAGES];
};

static void change_pages(struct area *area, uint64_t random) {
  int from = random % PAGES, count = 1 + (random >> 8) % 8;
  if (from + count > PAGES) count = PAGES - from;
  char *place = area->base + from * PAGE;
  if (random >> 16 & 1) {
    if (munmap(place, count * PAGE)) _exit(1);
    memset(area->mapped + from, 0, count);
  } else {
    if (mmap(place, count * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) _exit(1);
    memset(area->mapped + from, 1, count);
  }
}

static struct area areas[MOST];

static void *work(void *argument) {
  long number = (long)argument;
  uint64_t state = 88172645463325252ull * (number + 1);
  struct area *area = &areas[number];
  area->base = (char *)0x100000000000 + number * 0x10000000l;
  for (long i = 0; i < steps; i++) {
    uint64_t random = next_random(&state);
    struct slot *slot = &slots[random >> 32 & (SLOTS - 1)];
    if (atomic_exchange(&slot->taken, 1)) continue;
    if (!slot->block) take(slot, random);
    else if (random % 4 == 0) resize(slot, 1 + (random >> 20) % 1000);
    else if (random % 64 == 1 && realloc(slot->block, PTRDIFF_MAX)) _exit(1); /* fails, changes nothing */
    else drop(slot, random % 16 == 2);
    atomic_store(&slot->taken, 0);
    if (i % 16 == 0) change_pages(area, next_random(&state));
  }
  return NULL;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 4;
  steps = argc > 2 ? atol(argv[2]) : 20000;
  if (count < 1 || count > MOST) return 2;
  pthread_t threads[MOST];
  for (long i = 0; i < count; i++)
    if (pthread_create(&threads[i], NULL, work, (void *)i)) return 1;
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  oracle_open();
  for (int i = 0; i < SLOTS; i++)
    if (slots[i].block) tell("{\"live\":\"0x%lx\",\"size\":%zu", (unsigned long)slots[i].block, slots[i].size);
  for (int i = 0; i < count; i++)
    for (int page = 0; page < PAGES; page++)
      if (areas[i].mapped[page]) tell("{\"mapped\":\"0x%lx\"", (unsigned long)areas[i].base + page * PAGE);
  return 0;
}
