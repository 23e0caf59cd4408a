/* `tls_libraries DIRECTORY COUNT`: a thread is alive; libraries with thread-local data are loaded behind its back; then it
   touches their data (libc allocates it at that moment, inside its own TLS code) and allocates. Ends with 0. */
#include "oracle.h"

#include <dlfcn.h>
#include <pthread.h>

static pthread_barrier_t loaded;
static char *(*touch[64])(void);
static int count;

static void *work(void *argument) {
  free(malloc(100));
  pthread_barrier_wait(&loaded);
  for (int i = 0; i < count; i++) {
    void *block = malloc(200 + i);
    if (touch[i]()[0] != 1) _exit(4);
    free(block);
  }
  return argument;
}

int main(int argc, char **argv) {
  if (argc < 3 || (count = atoi(argv[2])) > 64) return 2;
  pthread_t thread;
  if (pthread_barrier_init(&loaded, NULL, 2) || pthread_create(&thread, NULL, work, NULL)) return 1;
  for (int i = 0; i < count; i++) {
    char path[4096], name[32];
    snprintf(path, sizeof path, "%s/libtls%d.so", argv[1], i);
    snprintf(name, sizeof name, "touch_%d", i);
    void *library = dlopen(path, RTLD_NOW);
    if (!library || !(touch[i] = (char *(*)(void))dlsym(library, name))) return 3;
  }
  pthread_barrier_wait(&loaded);
  return pthread_join(thread, NULL);
}
