/* `many_events PAIRS`: that many told-to-nobody malloc(20..1043) and free, errno checked after each; a line on standard output
   and one in the file `result` when all went well. Used wherever the log's storage fails under the program. */
#include "oracle.h"

int main(int argc, char **argv) {
  long pairs = argc > 1 ? atol(argv[1]) : 100000;
  for (long i = 0; i < pairs; i++) {
    errno = UNTOUCHED;
    char *block = malloc(20 + i % 1024);
    if (!block) return 1;
    errno_untouched("malloc");
    *block = 1;
    free(block);
    errno_untouched("free");
    if (i % 1000 == 0) {
      void *mapping = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mapping == MAP_FAILED) return 1;
      errno_untouched("mmap");
      munmap(mapping, 4096);
      errno_untouched("munmap");
    }
  }
  FILE *result = fopen("result", "w");
  if (!result || fprintf(result, "%ld pairs\n", pairs) < 0 || fclose(result)) return 1;
  return puts("all well") < 0;
}
