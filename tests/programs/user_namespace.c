/* unshare(CLONE_NEWUSER) is refused to a process with a second thread: whether a recorder runs one shows here. Standard
   output: the result. Allocates first. */
#include "oracle.h"

#include <sched.h>

int main(void) {
  for (int i = 0; i < 1000; i++) free(malloc(100 + i));
  int result = unshare(CLONE_NEWUSER);
  printf("%d %s\n", result, result ? strerrorname_np(errno) : "");
  for (int i = 0; i < 1000; i++) free(malloc(100 + i));
  return 0;
}
