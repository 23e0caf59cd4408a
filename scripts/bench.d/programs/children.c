/* children HOW COUNT MIB: begins COUNT children one after the other, waits for each, and prints "wall cpu": nanoseconds a
   child, of the whole and of the processor (this program and the children). HOW: exit (fork, _exit), malloc (fork, one
   malloc, _exit), exec (fork, /bin/true), vfork (the same by vfork), spawn (the same by posix_spawn). MIB of blocks are
   alive here. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static char *const program[] = {"/bin/true", NULL};

static long long wall(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static long long spent_by(int whom) {
  struct rusage usage;
  getrusage(whom, &usage);
  return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ll +
         (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ll;
}

static long long spent(void) { return spent_by(RUSAGE_SELF) + spent_by(RUSAGE_CHILDREN); }

static pid_t begin(const char *how) {
  pid_t child = -1;
  if (!strcmp(how, "spawn")) return posix_spawn(&child, program[0], NULL, NULL, program, environ) ? -1 : child;
  if (!strcmp(how, "vfork")) {
    child = vfork();
    if (child == 0) {
      execv(program[0], program);
      _exit(127);
    }
    return child;
  }
  child = fork();
  if (child != 0) return child;
  if (!strcmp(how, "exec")) execv(program[0], program);
  if (!strcmp(how, "malloc")) _exit(malloc(100) == NULL);
  _exit(strcmp(how, "exit") != 0);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  long count = atol(argv[2]), blocks = atol(argv[3]) * 16;
  for (long i = 0; i < blocks; i++) {
    void *block = malloc(64 << 10);
    if (!block) return 1;
    memset(block, 1, 64 << 10);
  }
  long long began = wall(), before = spent();
  for (long i = 0; i < count; i++) {
    int status;
    pid_t child = begin(argv[1]);
    if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0) return 1;
  }
  printf("%lld %lld\n", (wall() - began) / count, (spent() - before) / count);
  return 0;
}
