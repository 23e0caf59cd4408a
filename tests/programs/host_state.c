/* Everything of a process that an observer could have changed, on standard output: threads, signal masks and dispositions,
   umask, descriptors, limits, environment, timers, name. Not the memory map. Equal with and without memspy but for the
   environment variables that were set on purpose. Allocates first, so that a recorder is at work. */
#include "oracle.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void status(void) {
  static const char *const lines[] = {"Threads:", "SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:",
                                      "Umask:", "NoNewPrivs:", "Seccomp:", "CapEff:", "FDSize:", "TracerPid:"};
  FILE *file = fopen("/proc/self/status", "r");
  char line[512];
  while (file && fgets(line, sizeof line, file))
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
      if (!strncmp(line, lines[i], strlen(lines[i]))) fputs(line, stdout);
  fclose(file);
}

static void descriptors(void) {
  for (int fd = 0; fd < 1024; fd++) {
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) printf("descriptor %d flags %d\n", fd, flags);
  }
}

int main(void) {
  for (int i = 0; i < 50000; i++) free(malloc(100 + i % 100));
  status();
  descriptors();
  for (int resource = 0; resource < RLIMIT_NLIMITS; resource++) {
    struct rlimit limit;
    getrlimit(resource, &limit);
    printf("limit %d: %ld %ld\n", resource, (long)limit.rlim_cur, (long)limit.rlim_max);
  }
  for (int number = 1; number < NSIG; number++) {
    struct sigaction action;
    if (!sigaction(number, NULL, &action)) printf("signal %d: %p %x\n", number, (void *)action.sa_handler, action.sa_flags);
  }
  stack_t stack;
  sigaltstack(NULL, &stack);
  printf("alternate stack %d\n", stack.ss_flags);
  char name[17] = "";
  prctl(PR_GET_NAME, name);
  printf("name %s, dumpable %d, subreaper clean\n", name, prctl(PR_GET_DUMPABLE));
  for (char **variable = environ; *variable; variable++) puts(*variable);
  return 0;
}
