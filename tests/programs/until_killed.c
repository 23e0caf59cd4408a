/* `until_killed THREADS [SYNC]`: allocates without end until it is killed, and keeps the number of calls that have returned,
   one for each thread, in the shared file ORACLE (u64 each): after the kill at least so many must be in log + tail. Each
   thread's i-th call is malloc(i % 1000 + 1) without a free in between up to 1000 blocks, then they are freed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCKS = 1000 };

static void *work(void *argument) {
  volatile uint64_t *returned = argument;
  void *blocks[BLOCKS];
  for (;;) {
    for (int i = 0; i < BLOCKS; i++) {
      blocks[i] = malloc(i + 1);
      ++*returned;
    }
    for (int i = 0; i < BLOCKS; i++) {
      free(blocks[i]);
      ++*returned;
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  int count = argc > 1 ? atoi(argv[1]) : 1;
  int fd = open(getenv("ORACLE"), O_RDWR | O_CREAT, 0600);
  if (fd < 0 || ftruncate(fd, 4096)) return 1;
  uint64_t *returned = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (returned == MAP_FAILED || count < 1 || count > 64) return 1;
  close(fd);
  for (int i = 1; i < count; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, returned + i)) return 1;
  }
  work(returned);
}
