// C++: allocation in static constructors and destructors, exceptions thrown through allocating frames, in threads too.
// Standard output says what was caught. Ends with 0.
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static std::map<int, std::string> early = {{1, std::string(100, 'a')}, {2, std::string(200, 'b')}};

static int thrown(int depth) {
  std::vector<int> kept(depth * 10, depth);
  auto owner = std::make_unique<std::string>(depth, 'x');
  if (depth == 0) throw std::runtime_error(std::string(300, 'e'));
  return thrown(depth - 1) + kept[depth];
}

static void work() {
  int caught = 0;
  for (int i = 0; i < 500; i++) {
    try {
      thrown(i % 30);
    } catch (const std::runtime_error &error) {
      caught += std::string(error.what()).size() == 300;
    }
  }
  std::printf("%d\n", caught);
}

int main() {
  work();
  std::thread(work).join();
  try {
    std::vector<char> impossible(static_cast<std::size_t>(-1) / 2 - 1);
  } catch (const std::bad_alloc &) {
    std::puts("bad_alloc");
  }
  std::printf("%zu\n", early[2].size());
}
