/* Every allocation function of libc, as it should be called and as it should not: sizes of zero, sizes that can't be had,
   odd alignments, realloc to nothing. Standard output says what each call answered (not where), for a comparison with a
   run without memspy. Events: exactly those that the oracle lists, in its order. */
#include "oracle.h"

static void say(const char *call, void *block) {
  int error = errno;
  char line[128];
  int length = snprintf(line, sizeof line, "%s: %s, errno %d, usable %zu, aligned to %lu\n", call,
                        block ? "a block" : "NULL", block ? 0 : error, malloc_usable_size(block),
                        (unsigned long)block & -(unsigned long)block & 0xfff);
  if (write(1, line, length) != length) _exit(1);
}

#define SHOW(expression) show(#expression, expression)
static void show(const char *call, void *block) {
  say(call, block);
  told_free(block);
}

int main(void) {
  oracle_open();
  volatile size_t huge = PTRDIFF_MAX;
  SHOW(told_malloc(20001));
  SHOW(told_malloc(0));
  SHOW(told_malloc(huge));
  SHOW(told_malloc(SIZE_MAX));
  SHOW(told_malloc(300001)); /* above the mmap threshold */
  SHOW(told_calloc(7, 2003));
  SHOW(told_calloc(0, 0));
  SHOW(told_calloc(huge, 4));
  SHOW(told_realloc(NULL, 20011));
  SHOW(told_realloc(told_malloc(20021), 40021));
  SHOW(told_realloc(told_malloc(20023), 0));
  SHOW(told_realloc(told_malloc(400009), 800011)); /* mremap inside libc */
  void *kept = told_malloc(20029);
  say("realloc that fails", told_realloc(kept, huge));
  say("its old block", kept);
  told_free(kept);
  SHOW(told_reallocarray(NULL, 3, 7001));
  SHOW(told_reallocarray(told_malloc(20047), 2, 20051));
  kept = told_malloc(20063);
  say("reallocarray that overflows", told_reallocarray(kept, huge, 4));
  told_free(kept);
  SHOW(told_posix_memalign(64, 20071));
  SHOW(told_posix_memalign(4096, 0));
  SHOW(told_posix_memalign(3, 20089));
  SHOW(told_posix_memalign(4, 20101));
  SHOW(told_posix_memalign(64, huge));
  SHOW(told_aligned_alloc(64, 20107));
  SHOW(told_aligned_alloc(16, 24));
  SHOW(told_aligned_alloc(3, 24));
  SHOW(told_aligned_alloc(4096, 131072));
  SHOW(told_memalign(64, 20113));
  SHOW(told_memalign(3, 20117));
  SHOW(told_memalign(0, 20123));
  told_free(told_memalign(1u << 20, 20129)); /* its slack depends on where mmap puts it */
  SHOW(told_memalign(64, huge));
  SHOW(told_valloc(20131));
  SHOW(told_valloc(huge));
  SHOW(told_pvalloc(20143));
  SHOW(told_pvalloc(huge));
  told_free(NULL);
  return 0;
}
