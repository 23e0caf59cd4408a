/* A server's start: root opens, chroots to an empty directory (`drops_privilege DIRECTORY`), becomes nobody, forks. Parent and
   child allocate 20,000 blocks each afterwards. Ends with 0. */
#include "oracle.h"

#include <grp.h>
#include <sys/wait.h>

static void calls(void) {
  for (int i = 0; i < 20000; i++) {
    errno = UNTOUCHED;
    free(malloc(100 + i % 100));
    errno_untouched("free");
  }
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  calls();
  if (chroot(argv[1]) || chdir("/") || setgroups(0, NULL) || setgid(65534) || setuid(65534)) return 1;
  calls();
  pid_t child = fork();
  if (child == 0) {
    calls();
    _exit(0);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child || status) return 3;
  calls();
  return 0;
}
