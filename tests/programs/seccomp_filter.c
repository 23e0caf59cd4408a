/* A sandbox that kills for any system call but these: read, write, brk, mmap, munmap, mremap, futex, exit, exit_group,
   rt_sigreturn. `seccomp_filter prctl|seccomp` puts it on itself after 100 allocations, then makes 20,000 more. Standard output:
   "alive". Ends with 0; a call of memspy's that is not on the list ends with SIGSYS. */
#include "oracle.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  struct sock_filter list[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(read), ALLOW(write), ALLOW(brk), ALLOW(mmap), ALLOW(munmap), ALLOW(mremap), ALLOW(futex), ALLOW(exit),
      ALLOW(exit_group), ALLOW(rt_sigreturn),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog program = {sizeof list / sizeof *list, list};
  for (int i = 0; i < 100; i++) free(malloc(1000 + i));
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 1;
  int failed = !strcmp(argv[1], "prctl") ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)
                                         : (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
  if (failed) return 3;
  for (int i = 0; i < 20000; i++) free(malloc(2000 + i % 1000));
  if (write(1, "alive\n", 6) != 6) return 4;
  _exit(0);
}
