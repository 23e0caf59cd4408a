/* meter REPORT COMMAND...: runs the command and writes "wall_ns cpu_us peak_kib status" to REPORT. A small parent of its
   own, because a child's peak of resident memory starts at that of the process that forked it. */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  long long start = now();
  pid_t child = fork();
  if (child == 0) {
    execvp(argv[2], argv + 2);
    _exit(127);
  }
  int status;
  struct rusage usage;
  if (child < 0 || wait4(child, &status, 0, &usage) < 0) return 1;
  long long wall = now() - start;
  long long processor = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000ll + usage.ru_utime.tv_usec +
                        usage.ru_stime.tv_usec;
  FILE *report = fopen(argv[1], "w");
  if (!report) return 1;
  fprintf(report, "%lld %lld %ld %d\n", wall, processor, usage.ru_maxrss,
          WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  return fclose(report) != 0;
}
