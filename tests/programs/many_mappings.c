/* Many mappings (`many_mappings COUNT`): every other page of a range loses its permissions. Prints how many mappings the
   kernel lists then. Events: one mmap of COUNT pages, COUNT / 2 mprotect. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  long count = atol(argv[1]);
  char *pages = mmap(NULL, count * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return 1;
  for (long i = 0; i < count; i += 2)
    if (mprotect(pages + i * 4096, 4096, PROT_NONE)) return 1;
  FILE *maps = fopen("/proc/self/maps", "r");
  if (!maps) return 1;
  int lines = 0, byte;
  while ((byte = getc(maps)) != EOF) lines += byte == '\n';
  printf("%d\n", lines);
  return fclose(maps) != 0;
}
