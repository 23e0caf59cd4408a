/* biglog EVENTS [LIVE]: writes a valid log of that many events (src/log/FORMAT.md) to standard output: four threads that
   take turns, LIVE blocks (default 10,000) in use all the time, the oldest freed before the next is taken. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, TEXT = 64 * 1024, ROOM = 256 };

struct buffer {
  char text[TEXT];
  size_t used;
  uint64_t first, events, from, until;
};

static struct buffer buffers[THREADS + 1];

static void flush(int thread) {
  struct buffer *buffer = &buffers[thread];
  if (!buffer->events) return;
  printf("{\"op\":\"block\",\"thread\":%d,\"tid\":%d,\"n\":%" PRIu64 ",\"events\":%" PRIu64
         ",\"bytes\":%zu,\"t\":%" PRIu64 ",\"until\":%" PRIu64 "}\n",
         thread, 100 + thread - 1, buffer->first, buffer->events, buffer->used, buffer->from, buffer->until);
  fwrite(buffer->text, 1, buffer->used, stdout);
  buffer->first += buffer->events;
  buffer->used = buffer->events = 0;
}

static char *line(int thread, uint64_t time) {
  struct buffer *buffer = &buffers[thread];
  if (buffer->used + ROOM > TEXT) flush(thread);
  if (!buffer->events) buffer->from = time;
  buffer->until = time;
  buffer->events++;
  return buffer->text + buffer->used;
}

int main(int argc, char **argv) {
  uint64_t events = argc > 1 ? strtoull(argv[1], NULL, 10) : 5000000;
  uint64_t live = argc > 2 ? strtoull(argv[2], NULL, 10) : 10000;
  if (!live) return 2;
  printf("{\"op\":\"start\",\"v\":1,\"pid\":100,\"ppid\":1,\"exe\":\"/generated\",\"argv\":[\"generated\"],"
         "\"cwd\":\"/\",\"unix_ns\":1790000000000000000,\"mono_ns\":0,\"boot_id\":\"\",\"start_ticks\":1,"
         "\"pid_ns\":1,\"memspy\":\"0.1.0\",\"libc\":\"glibc 2.36\",\"allocator\":\"glibc\",\"inference\":false,"
         "\"clock\":\"monotonic\",\"mode\":\"events\",\"stacks\":\"off\",\"page\":4096}\n");
  for (int thread = 1; thread <= THREADS; thread++) buffers[thread].first = 1;
  uint64_t taken = 0, freed = 0, time = 0;
  for (uint64_t event = 0; event < events; event++) {
    int thread = 1 + event / 64 % THREADS; /* each thread runs for 64 events, then the next */
    time += 25;
    char *text = line(thread, time);
    int release = taken - freed == live;
    uint64_t slot = (release ? freed : taken) % live;
    uint64_t address = 0x55550000 + slot * 4096;
    if (release) {
      buffers[thread].used += sprintf(
          text, "{\"op\":\"free\",\"t\":%" PRIu64 ",\"ptr\":\"0x%" PRIx64 "\"}\n", time, address);
      freed++;
    } else {
      buffers[thread].used += sprintf(
          text, "{\"op\":\"malloc\",\"t\":%" PRIu64 ",\"size\":%" PRIu64 ",\"ptr\":\"0x%" PRIx64 "\"}\n", time,
          16 + taken * 7919 % 2000, address);
      taken++;
    }
  }
  for (int thread = 1; thread <= THREADS; thread++) flush(thread);
  char open[256] = "";
  for (int thread = 1; thread <= THREADS; thread++)
    sprintf(open + strlen(open), "%s[%d,%" PRIu64 "]", thread > 1 ? "," : "", thread,
            buffers[thread].first - 1 + (thread == 1)); /* `end` is an event of the first thread */
  char end[512];
  int length = snprintf(end, sizeof end,
                        "{\"op\":\"end\",\"t\":%" PRIu64 ",\"how\":\"exit\",\"streams\":%d,\"open\":[%s],\"lost\":0,"
                        "\"abandoned\":0,\"mapped\":0}\n",
                        time + 1, THREADS, open);
  printf("{\"op\":\"block\",\"thread\":1,\"tid\":100,\"n\":%" PRIu64 ",\"events\":1,\"bytes\":%d,\"t\":%" PRIu64
         ",\"until\":%" PRIu64 "}\n%s",
         buffers[1].first, length, time + 1, time + 1, end);
  return ferror(stdout) || fflush(stdout);
}
