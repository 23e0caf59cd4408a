// A translation unit for the compiler to chew on: <regex> with two character types.
#include <iostream>
#include <map>
#include <regex>
#include <string>

int main() {
  std::regex words("([a-z]+)-([0-9]{2,4})", std::regex::icase);
  std::wregex wide(L"(.*)/([^/]+)");
  std::map<std::string, std::string> found;
  std::string line;
  while (std::getline(std::cin, line)) {
    for (std::sregex_iterator at(line.begin(), line.end(), words), end; at != end; ++at)
      found[(*at)[1]] = std::regex_replace(line, words, "$2-$1");
    std::wstring copy(line.begin(), line.end());
    std::wsmatch match;
    if (std::regex_match(copy, match, wide)) std::wcout << match[2].str() << L'\n';
  }
  for (const auto &[key, value] : found) std::cout << key << ' ' << value << '\n';
}
