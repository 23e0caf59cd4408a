/* SECCOMP_MODE_STRICT: nothing but read, write, exit and sigreturn. 100 allocations before, 500 small ones after (the heap is
   grown before, so that libc itself needs no system call). Standard output: "alive". Ends with 0. */
#include "oracle.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>

int main(void) {
  for (int i = 0; i < 100; i++) free(malloc(1000 + i));
  free(malloc(60000));
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0)) return 3;
  for (int i = 0; i < 500; i++) free(malloc(2000 + i));
  if (write(1, "alive\n", 6) != 6) syscall(SYS_exit, 4);
  syscall(SYS_exit, 0);
}
