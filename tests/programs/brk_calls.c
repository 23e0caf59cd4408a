/* brk and sbrk by the program itself, between mallocs that grow the same heap: libc's idea of the break must stay in step, or
   malloc hands out memory that is somebody else's. Events: the program's sbrk and brk calls as the oracle lists them. Ends
   with 5 when a byte was overwritten. */
#include "oracle.h"

enum { ROUNDS = 64, SIZE = 40009 };

static void *told_sbrk(intptr_t delta) {
  char *from = sbrk(0);
  errno = UNTOUCHED;
  char *result = sbrk(delta);
  if (result == (void *)-1) {
    tell("{\"op\":\"sbrk\",\"delta\":%ld,\"err\":\"%s\"", (long)delta, strerrorname_np(errno));
    return NULL;
  }
  errno_untouched("sbrk");
  tell("{\"op\":\"sbrk\",\"delta\":%ld,\"from\":\"0x%lx\",\"to\":\"0x%lx\"", (long)delta, (unsigned long)from,
       (unsigned long)from + delta);
  return result;
}

int main(void) {
  oracle_open();
  unsigned char *taken[ROUNDS], *blocks[ROUNDS];
  for (int i = 0; i < ROUNDS; i++) {
    if (!(taken[i] = told_sbrk(8192)) || !(blocks[i] = malloc(SIZE))) return 1;
    memset(taken[i], 2 * i, 8192);
    memset(blocks[i], 2 * i + 1, SIZE);
  }
  for (int i = 0; i < ROUNDS; i++) {
    for (int at = 0; at < 8192; at++)
      if (taken[i][at] != 2 * i) return 5;
    for (int at = 0; at < SIZE; at++)
      if (blocks[i][at] != 2 * i + 1) return 5;
  }
  told_sbrk(65536);
  told_sbrk(-65536);
  if (told_sbrk(PTRDIFF_MAX)) return 6;
  char *top = sbrk(0);
  errno = UNTOUCHED;
  if (brk(top + 4096)) return 7;
  errno_untouched("brk");
  tell("{\"op\":\"brk\",\"from\":\"0x%lx\",\"to\":\"0x%lx\"", (unsigned long)top, (unsigned long)top + 4096);
  if (brk(top)) return 7;
  tell("{\"op\":\"brk\",\"from\":\"0x%lx\",\"to\":\"0x%lx\"", (unsigned long)top + 4096, (unsigned long)top);
  if (sbrk(0) != top) return 8;
  for (int i = 0; i < ROUNDS; i++) free(blocks[i]);
  return 0;
}
