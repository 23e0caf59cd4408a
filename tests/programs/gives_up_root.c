/* A server's worker: root allocates, becomes nobody by one of the calls (`gives_up_root setuid|seteuid|setreuid|setresuid`),
   allocates 20,000 blocks. Ends with 0. */
#include "oracle.h"

static int become(const char *how, uid_t user) {
  if (!strcmp(how, "setuid")) return setuid(user);
  if (!strcmp(how, "seteuid")) return seteuid(user);
  if (!strcmp(how, "setreuid")) return setreuid(user, user);
  return setresuid(user, user, user);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  free(malloc(20001));
  if (become(argv[1], 65534)) return 1;
  for (int i = 0; i < 20000; i++) {
    errno = UNTOUCHED;
    free(malloc(100 + i % 100));
    errno_untouched("free");
  }
  return 0;
}
