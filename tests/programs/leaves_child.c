/* leaves_child: ends while its child waits for the fifo `wait`. The child makes no call of memory, ever. */
#include <fcntl.h>
#include <unistd.h>

int main(void) {
  pid_t child = fork();
  if (child < 0) return 1;
  if (child > 0) return 0;
  for (int fd = 0; fd < 3; fd++) close(fd); /* so that nobody waits for it */
  char byte;
  int fd = open("wait", O_RDONLY);
  _exit(read(fd, &byte, 1) != 1);
}
