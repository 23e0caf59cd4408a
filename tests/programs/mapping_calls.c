/* Every mapping function: mmap with hint, file, fixed place and failure; partial and failing munmap; mremap in place, moved,
   fixed and failing; mprotect. Events: exactly those that the oracle lists (beside the kernel calls that memspy infers). */
#include "oracle.h"

int main(void) {
  oracle_open();
  const int rw = PROT_READ | PROT_WRITE, anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  char *area = told_mmap(NULL, 16 * 4096, rw, anonymous, -1, 0);
  if (area == MAP_FAILED) return 1;
  memset(area, 7, 16 * 4096);
  told_mmap(area + 4 * 4096, 2 * 4096, PROT_READ, anonymous | MAP_FIXED, -1, 0);
  if (area[4 * 4096] != 0 || area[0] != 7) return 3;
  told_munmap(area + 8 * 4096, 4096);
  told_mprotect(area, 4096, PROT_READ);
  told_mprotect(area, 4096, PROT_NONE);
  told_mprotect(area + 1, 4096, PROT_READ);
  told_munmap(area + 1, 4096);
  told_munmap(area, 16 * 4096);

  told_mmap(NULL, 0, rw, anonymous, -1, 0);
  told_mmap(NULL, 4096, rw, MAP_PRIVATE, -1, 0);
  told_mmap((void *)0x7e0000000000, 4096, rw, anonymous | MAP_FIXED_NOREPLACE, -1, 0);
  told_mmap((void *)0x7e0000000000, 8192, rw, anonymous | MAP_FIXED_NOREPLACE, -1, 0);
  told_munmap((void *)0x7e0000000000, 4096);
  void *hinted = told_mmap((void *)0x7d0000000000, 4096, rw, anonymous, -1, 0);
  told_munmap(hinted, 4096);

  int fd = memfd_create("file", 0);
  if (fd < 0 || ftruncate(fd, 8 * 4096)) return 1;
  char *file = told_mmap(NULL, 2 * 4096, rw, MAP_SHARED, fd, 4096);
  if (file == MAP_FAILED) return 1;
  file[0] = 9;
  char byte;
  if (pread(fd, &byte, 1, 4096) != 1 || byte != 9) return 4;
  errno = UNTOUCHED;
  void *wide = mmap64(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
  tell("{\"op\":\"mmap\",\"size\":4096,\"prot\":1,\"flags\":1,\"fd\":%d,\"offset\":0,\"addr\":\"0x%lx\"", fd,
       (unsigned long)wide);
  told_munmap(wide, 4096);
  told_munmap(file, 2 * 4096);
  close(fd);

  char *old = told_mmap(NULL, 4 * 4096, rw, anonymous, -1, 0);
  if (old == MAP_FAILED) return 1;
  old[0] = 5;
  told_mremap(old, 4 * 4096, 2 * 4096, 0, NULL);
  char *moved = told_mremap(old, 2 * 4096, 64 * 4096, MREMAP_MAYMOVE, NULL);
  if (moved == MAP_FAILED || moved[0] != 5) return 5;
  char *place = told_mmap(NULL, 64 * 4096, PROT_NONE, anonymous | MAP_NORESERVE, -1, 0);
  char *fixed = told_mremap(moved, 64 * 4096, 64 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, place);
  if (fixed != place || fixed[0] != 5) return 6;
  told_mremap(moved, 4096, 8192, 0, NULL);
  told_munmap(fixed, 64 * 4096);
  void *reserved = told_mmap(NULL, 1ul << 40, PROT_NONE, anonymous | MAP_NORESERVE, -1, 0);
  told_munmap(reserved, 1ul << 40);
  return 0;
}
