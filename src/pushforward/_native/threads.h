// Work shared among threads that live as long as one call.
//
// No OpenMP: a second OpenMP runtime beside torch's has its own threads and its own ways to crash.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Calls work(first, last) for parts of 0..count, at least `grain` each, the last part in this thread.
template <class Work> void share(int64_t count, int64_t grain, int64_t threads, const Work &work) {
  const int64_t parts = std::max<int64_t>(1, std::min(threads, count / std::max<int64_t>(1, grain)));
  std::vector<std::thread> others;
  int64_t first = 0;
  for (int64_t part = 0; part + 1 < parts; part++) {
    const int64_t last = count * (part + 1) / parts;
    try {
      others.emplace_back(work, first, last);
    } catch (...) {  // no thread to be had
      break;
    }
    first = last;
  }
  work(first, count);
  for (auto &other : others) other.join();
}

}  // namespace
