/* Built forty times with another NAME each: a library with thread-local data of its own, for tls_libraries. */
#define GLUE(a, b) a##b
#define GLUED(a, b) GLUE(a, b)
static __thread char data[512];
char *GLUED(touch_, NAME)(void) {
  data[0]++;
  return data;
}
