/* A daemon's habit: `closes_everything HOW` closes every descriptor that it does not know, by closefrom, close_range, loop (close)
   or dup2 (over every number), again and again among 40,000 allocations, and opens files of its own on the freed numbers. The
   files must hold what it wrote and nothing else, and the numbers that open gave must be those of a run without memspy. */
#include "oracle.h"

#include <sys/stat.h>

static void close_all(const char *how) {
  if (!strcmp(how, "closefrom")) closefrom(3);
  else if (!strcmp(how, "close_range")) close_range(3, ~0u, 0);
  else if (!strcmp(how, "loop"))
    for (int fd = 3; fd < 256; fd++) close(fd);
  else
    for (int fd = 3; fd < 256; fd++) dup2(2, fd);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  for (int round = 0; round < 20; round++) {
    close_all(argv[1]);
    if (!strcmp(argv[1], "dup2")) close_range(3, 10, 0);
    int files[3];
    for (int i = 0; i < 3; i++) {
      char name[32];
      snprintf(name, sizeof name, "file%d", i);
      files[i] = open(name, O_WRONLY | O_CREAT | O_APPEND, 0644);
      dprintf(1, "%d ", files[i]);
    }
    for (int i = 0; i < 2000; i++) {
      free(malloc(100 + i % 50));
      if (i % 200 == 0)
        for (int k = 0; k < 3; k++) dprintf(files[k], "round %d line %d\n", round, i / 200);
    }
    for (int i = 0; i < 3; i++)
      if (close(files[i])) return 4;
  }
  for (int i = 0; i < 3; i++) {
    char name[32];
    struct stat file;
    snprintf(name, sizeof name, "file%d", i);
    if (stat(name, &file)) return 5;
    dprintf(1, "%ld\n", (long)file.st_size);
  }
  return 0;
}
