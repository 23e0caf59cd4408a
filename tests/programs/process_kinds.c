/* A child made in one of the ways that there are (`process_kinds KIND`), each making 50 told allocations; the parent makes 100
   before it and 50 after it. Kinds: fork, orphan (whose parent has ended before its first call), _fork (no handlers run), clone (no libc at all), fork_exec (which makes none and
   execs /bin/true), vfork, spawn (which execs /bin/true), exec (this program again, with `child`), exec_fails. Events: parent and child have logs of their own, each with
   its own calls only; a vfork child works in its parent's memory, so its calls are the parent's. */
#include "oracle.h"

#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

static void calls(int count, size_t size) {
  for (int i = 0; i < count; i++) told_free(told_malloc(size));
}

static int child(void) {
  oracle_fd = -1;
  const char *path = getenv("CHILD_ORACLE");
  if (path) setenv("ORACLE", path, 1);
  oracle_open();
  calls(50, 30001);
  return 0;
}

static int reap(pid_t id) {
  int status;
  if (id < 0 || waitpid(id, &status, 0) != id) return 1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const char *kind = argv[1];
  if (!strcmp(kind, "child")) return child();
  oracle_open();
  calls(100, 20001);
  int result = 0;
  pid_t id = 0;
  if (!strcmp(kind, "fork") || !strcmp(kind, "_fork") || !strcmp(kind, "clone")) {
    if (!strcmp(kind, "fork")) id = fork();
    else if (!strcmp(kind, "_fork")) id = _Fork();
    else id = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0ul);
    if (id == 0) return child();
    result = reap(id);
  } else if (!strcmp(kind, "orphan")) {
    pid_t parent = getpid();
    id = fork();
    if (id == 0) {
      while (getppid() == parent) sched_yield();
      return child();
    }
    result = id < 0;
  } else if (!strcmp(kind, "fork_exec")) {
    id = fork();
    if (id == 0) {
      execl("/bin/true", "true", (char *)NULL);
      _exit(127);
    }
    result = reap(id);
  } else if (!strcmp(kind, "vfork")) {
    id = vfork();
    if (id == 0) {
      free(malloc(30011));
      execl("/nonexistent/program", "program", (char *)NULL);
      _exit(5);
    }
    result = reap(id) == 5 ? 0 : 1;
  } else if (!strcmp(kind, "spawn")) {
    char *arguments[] = {"true", NULL};
    if (posix_spawn(&id, "/bin/true", NULL, NULL, arguments, environ)) return 1;
    result = reap(id);
    char *nothing[] = {"nothing", NULL};
    if (posix_spawn(&id, "/nonexistent/program", NULL, NULL, nothing, environ) != ENOENT) return 1;
  } else if (!strcmp(kind, "exec_fails")) {
    char *nothing[] = {"nothing", NULL};
    if (execve("/nonexistent/program", nothing, environ) != -1 || errno != ENOENT) return 1;
    if (execvp("/nonexistent/program", nothing) != -1 || errno != ENOENT) return 1;
    if (execl("/etc/passwd", "passwd", (char *)NULL) != -1 || errno != EACCES) return 1;
  } else if (!strcmp(kind, "exec")) {
    char *again[] = {argv[0], "child", NULL};
    execv("/proc/self/exe", again);
    return 1;
  }
  calls(50, 20003);
  return result;
}
