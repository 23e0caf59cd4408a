/* Every descriptor that the limit allows is in use while 100,000 events happen, then they are given back and 100 told calls
   follow. Ends with 0, or with an argument by SIGKILL; the program itself must see EMFILE exactly when it would without memspy. */
#include "oracle.h"

#include <signal.h>
#include <sys/resource.h>

int main(int argc, char **argv) {
  (void)argv;
  oracle_open();
  struct rlimit limit = {300, 300};
  if (setrlimit(RLIMIT_NOFILE, &limit)) return 1;
  int opened = 0, last = -1, fds[300];
  while ((last = open("/dev/null", O_RDONLY)) >= 0) fds[opened++] = last;
  if (errno != EMFILE) return 3;
  for (int i = 0; i < 50000; i++) {
    errno = UNTOUCHED;
    free(malloc(100 + i % 50));
    errno_untouched("free");
  }
  if (open("/dev/null", O_RDONLY) >= 0) return 4;
  dprintf(1, "%d\n", opened);
  for (int i = 0; i < opened; i++) close(fds[i]);
  for (int i = 0; i < 100; i++) told_free(told_malloc(20001));
  if (argc > 1) raise(SIGKILL);
  return 0;
}
