/* A thread whose first call is under way while the process ends, and that goes on to call until it is over. The number of
   its malloc(20001) that have returned stands in the shared file ORACLE (u64): at least so many must be in the log. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile int begun;

static void *work(void *argument) {
  volatile uint64_t *returned = argument;
  begun = 1;
  for (;;) {
    void *volatile block = malloc(20001);
    ++*returned;
    free(block);
    usleep(100); /* a small log */
  }
  return NULL;
}

int main(void) {
  int fd = open(getenv("ORACLE"), O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, 4096)) return 1;
  void *returned = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (returned == MAP_FAILED) return 1;
  close(fd);
  pthread_t thread;
  if (pthread_create(&thread, NULL, work, returned)) return 1;
  while (!begun) {}
  /* The other thread is to be in its first call by now. If it is not, it finds the end there. */
  usleep(50000);
  return 0;
}
