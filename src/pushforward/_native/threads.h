// Work shared among threads: those of torch where its OpenMP is at hand, else ones that live as long as the call.
//
// No OpenMP of our own: its threads would fight with torch's, which go on spinning for a while after their work.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// GOMP_parallel of the OpenMP library that torch has loaded: calls a function in several threads at once.
using Region = void (*)(void (*)(void *), void *, unsigned, unsigned);
Region region = nullptr;

// In how many parts 0..count is cut, at least `grain` each.
inline int64_t parts_of(int64_t count, int64_t grain, int64_t threads) {
  return std::max<int64_t>(1, std::min(threads, count / std::max<int64_t>(1, grain)));
}

// Calls work(first, last, part) for each of the parts.
template <class Work> void share(int64_t count, int64_t parts, const Work &work) {
  if (parts == 1) return work(0, count, 0);
  std::atomic<int64_t> next{0};
  const auto take = [&] {
    for (int64_t part; (part = next++) < parts;) work(count * part / parts, count * (part + 1) / parts, part);
  };
  using Take = decltype(take);
  if (region) {
    region([](void *data) { (*static_cast<Take *>(data))(); }, const_cast<void *>(static_cast<const void *>(&take)), unsigned(parts), 0);
    return;
  }
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < parts; i++) others.emplace_back(take);
  } catch (...) {  // no more threads to be had: those that are there do the work
  }
  take();
  for (auto &other : others) other.join();
}

}  // namespace
