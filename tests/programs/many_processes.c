/* `many_processes COUNT AT_ONCE`: that many forked children, so many at a time, each of which allocates and frees once. Prints
   how many ended as they should. Events of each child: a malloc(20001) and its free. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int child(void) {
  void *volatile block = malloc(20001);
  free(block);
  return block ? 0 : 1;
}

int main(int argc, char **argv) {
  long count = argc > 1 ? atol(argv[1]) : 100, at_once = argc > 2 ? atol(argv[2]) : 4;
  long well = 0;
  for (long begun = 0, ended = 0; ended < count; ended++) {
    for (; begun < count && begun - ended < at_once; begun++) {
      pid_t pid = fork();
      if (pid < 0) return 1;
      if (pid == 0) exit(child());
    }
    int status;
    if (wait(&status) < 0) return 1;
    well += status == 0;
  }
  return printf("%ld processes\n", well) < 0;
}
