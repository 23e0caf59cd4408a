/* What a test program did, told by itself: one line for each call, in the log's own words (op, arguments, result, err),
   written to the file named by ORACLE after the call has returned. Without ORACLE the calls are only made.
   Each told call also checks that errno is left alone by a call that succeeds; the program ends with 97 if not. */
#ifndef ORACLE_H
#define ORACLE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { UNTOUCHED = 4242, ERRNO_TOUCHED = 97 };

static int oracle_fd = -1;

/* Opens the oracle on a high number, so that the program's own descriptors are those of a run without it. */
static inline void oracle_open(void) {
  const char *path = getenv("ORACLE");
  if (!path || oracle_fd >= 0) return;
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) _exit(96);
  oracle_fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
  if (oracle_fd < 0) oracle_fd = fd;
  else close(fd);
}

/* One line; {"op":… is completed with the thread, as the log has it. */
__attribute__((format(printf, 1, 2))) static inline void tell(const char *format, ...) {
  if (oracle_fd < 0) return;
  int kept = errno;
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 40, format, arguments);
  va_end(arguments);
  long tid = syscall(SYS_gettid), pid = syscall(SYS_getpid);
  if (tid != pid) length += sprintf(line + length, ",\"tid\":%ld", tid);
  length += sprintf(line + length, "}\n");
  if (write(oracle_fd, line, length) != length) _exit(96);
  errno = kept;
}

/* Ends the program when a successful call changed errno. */
static inline void errno_untouched(const char *call) {
  if (errno == UNTOUCHED) return;
  dprintf(2, "%s succeeded and set errno to %d\n", call, errno);
  _exit(ERRNO_TOUCHED);
}

/* The end of a told allocation: its pointer, or its error. */
static inline void *told(const char *call, const char *begun, void *result, int error) {
  if (result) {
    errno_untouched(call);
    tell("%s,\"ptr\":\"0x%lx\"", begun, (unsigned long)result);
  } else {
    tell("%s,\"err\":\"%s\"", begun, strerrorname_np(error));
  }
  return result;
}

#define BEGUN(...) \
  char begun[256]; \
  snprintf(begun, sizeof begun, __VA_ARGS__); \
  errno = UNTOUCHED

static inline void *told_malloc(size_t size) {
  BEGUN("{\"op\":\"malloc\",\"size\":%zu", size);
  void *result = malloc(size);
  return told("malloc", begun, result, errno);
}

static inline void *told_calloc(size_t count, size_t size) {
  BEGUN("{\"op\":\"calloc\",\"count\":%zu,\"size\":%zu", count, size);
  void *result = calloc(count, size);
  return told("calloc", begun, result, errno);
}

static inline void *told_realloc(void *old, size_t size) {
  BEGUN("{\"op\":\"realloc\",\"old\":\"0x%lx\",\"size\":%zu", (unsigned long)old, size);
  void *result = realloc(old, size);
  if (!result && errno == UNTOUCHED) { /* realloc(p, 0) that freed */
    tell("%s", begun);
    return NULL;
  }
  return told("realloc", begun, result, errno);
}

static inline void *told_reallocarray(void *old, size_t count, size_t size) {
  BEGUN("{\"op\":\"reallocarray\",\"old\":\"0x%lx\",\"count\":%zu,\"size\":%zu", (unsigned long)old, count, size);
  void *result = reallocarray(old, count, size);
  if (!result && errno == UNTOUCHED) {
    tell("%s", begun);
    return NULL;
  }
  return told("reallocarray", begun, result, errno);
}

static inline void told_free(void *block) {
  BEGUN("{\"op\":\"free\",\"ptr\":\"0x%lx\"", (unsigned long)block);
  free(block);
  errno_untouched("free");
  tell("%s", begun);
}

static inline void *told_posix_memalign(size_t align, size_t size) {
  BEGUN("{\"op\":\"posix_memalign\",\"align\":%zu,\"size\":%zu", align, size);
  void *result = (void *)16;
  int error = posix_memalign(&result, align, size);
  if (error && result != (void *)16) _exit(95); /* glibc leaves it alone on failure */
  return told("posix_memalign", begun, error ? NULL : result, error);
}

static inline void *told_aligned_alloc(size_t align, size_t size) {
  BEGUN("{\"op\":\"aligned_alloc\",\"align\":%zu,\"size\":%zu", align, size);
  void *result = aligned_alloc(align, size);
  return told("aligned_alloc", begun, result, errno);
}

static inline void *told_memalign(size_t align, size_t size) {
  BEGUN("{\"op\":\"memalign\",\"align\":%zu,\"size\":%zu", align, size);
  void *result = memalign(align, size);
  return told("memalign", begun, result, errno);
}

static inline void *told_valloc(size_t size) {
  BEGUN("{\"op\":\"valloc\",\"size\":%zu", size);
  void *result = valloc(size);
  return told("valloc", begun, result, errno);
}

static inline void *told_pvalloc(size_t size) {
  BEGUN("{\"op\":\"pvalloc\",\"size\":%zu", size);
  void *result = pvalloc(size);
  return told("pvalloc", begun, result, errno);
}

/* The end of a told mapping call: its address, or its error. */
static inline void *told_address(const char *call, const char *begun, void *result) {
  if (result != MAP_FAILED) {
    errno_untouched(call);
    tell("%s,\"addr\":\"0x%lx\"", begun, (unsigned long)result);
  } else {
    tell("%s,\"err\":\"%s\"", begun, strerrorname_np(errno));
  }
  return result;
}

static inline void *told_mmap(void *hint, size_t size, int prot, int flags, int fd, off_t offset) {
  char hinted[40] = "";
  if (hint) snprintf(hinted, sizeof hinted, ",\"hint\":\"0x%lx\"", (unsigned long)hint);
  BEGUN("{\"op\":\"mmap\"%s,\"size\":%zu,\"prot\":%d,\"flags\":%d,\"fd\":%d,\"offset\":%ld", hinted, size, prot, flags,
        fd, (long)offset);
  return told_address("mmap", begun, mmap(hint, size, prot, flags, fd, offset));
}

static inline int told_munmap(void *address, size_t size) {
  BEGUN("{\"op\":\"munmap\",\"addr\":\"0x%lx\",\"size\":%zu", (unsigned long)address, size);
  int result = munmap(address, size);
  if (result) {
    tell("%s,\"err\":\"%s\"", begun, strerrorname_np(errno));
  } else {
    errno_untouched("munmap");
    tell("%s", begun);
  }
  return result;
}

static inline void *told_mremap(void *old, size_t old_size, size_t size, int flags, void *hint) {
  char hinted[40] = "";
  if (flags & MREMAP_FIXED) snprintf(hinted, sizeof hinted, ",\"hint\":\"0x%lx\"", (unsigned long)hint);
  BEGUN("{\"op\":\"mremap\",\"old\":\"0x%lx\",\"old_size\":%zu,\"size\":%zu,\"flags\":%d%s", (unsigned long)old,
        old_size, size, flags, hinted);
  return told_address("mremap", begun, mremap(old, old_size, size, flags, hint));
}

static inline int told_mprotect(void *address, size_t size, int prot) {
  BEGUN("{\"op\":\"mprotect\",\"addr\":\"0x%lx\",\"size\":%zu,\"prot\":%d", (unsigned long)address, size, prot);
  int result = mprotect(address, size, prot);
  if (result) {
    tell("%s,\"err\":\"%s\"", begun, strerrorname_np(errno));
  } else {
    errno_untouched("mprotect");
    tell("%s", begun);
  }
  return result;
}

#endif
