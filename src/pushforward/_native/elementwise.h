// A scalar map at every one of n values, each with parameters of its own.
#pragma once

#include "maps.h"
#include "threads.h"

namespace {

constexpr int most_parameters = 3 * most_bins + 1;

// Columns of a vector's worth of rows. Rows beyond `count` repeat the last one.
template <class T> INLINE void transposed(const T *rows, int columns, int count, Vector<T> *to) {
  for (int lane = 0; lane < lanes<T>; lane++) {
    const T *row = rows + (lane < count ? lane : count - 1) * columns;
    for (int j = 0; j < columns; j++) reinterpret_cast<T *>(to + j)[lane] = row[j];
  }
}

template <class T> INLINE void transposed_back(const Vector<T> *from, int columns, int count, T *rows) {
  for (int lane = 0; lane < count; lane++)
    for (int j = 0; j < columns; j++) rows[lane * columns + j] = reinterpret_cast<const T *>(from + j)[lane];
}

template <class T> INLINE Vector<T> load_some(const T *from, int count) {
  if (count == lanes<T>) return load(from);
  Vector<T> value{};
  for (int lane = 0; lane < count; lane++) value[lane] = from[lane];
  return value;
}

template <class T> INLINE void store_some(T *to, Vector<T> value, int count) {
  if (count == lanes<T>) return store<T>(to, value);
  for (int lane = 0; lane < count; lane++) to[lane] = value[lane];
}

template <class T, class Map>
void elementwise(const Map &map, int64_t n, const T *value, const T *h, T *out, T *log_slope, int64_t grain, int64_t threads) {
  const int64_t vectors = (n + lanes<T> - 1) / lanes<T>;
  share(vectors, parts_of(vectors, grain, threads), [=](int64_t first, int64_t last, int64_t) {
    Vector<T> own[most_parameters];
    const int parameters = map.parameters();
    for (int64_t i = first * lanes<T>; i < std::min(n, last * lanes<T>); i += lanes<T>) {
      const int count = int(std::min<int64_t>(lanes<T>, n - i));
      transposed(h + i * parameters, parameters, count, own);
      Vector<T> x, l;
      map.apply(load_some(value + i, count), own, 1, x, l);
      store_some(out + i, x, count);
      store_some(log_slope + i, l, count);
    }
  });
}

template <class T, class Map>
void elementwise_pull(const Map &map, int64_t n, const T *value, const T *h, const T *out, const T *log_slope, const T *by_out,
                      const T *by_log_slope, T *by_value, T *by_h, int64_t grain, int64_t threads) {
  const int64_t vectors = (n + lanes<T> - 1) / lanes<T>;
  share(vectors, parts_of(vectors, grain, threads), [=](int64_t first, int64_t last, int64_t) {
    Vector<T> own[most_parameters], by_own[most_parameters];
    const int parameters = map.parameters();
    for (int64_t i = first * lanes<T>; i < std::min(n, last * lanes<T>); i += lanes<T>) {
      const int count = int(std::min<int64_t>(lanes<T>, n - i));
      transposed(h + i * parameters, parameters, count, own);
      Vector<T> by_x;
      map.pull(load_some(value + i, count), own, 1, load_some(out + i, count), load_some(log_slope + i, count),
               load_some(by_out + i, count), load_some(by_log_slope + i, count), by_x, by_own);
      store_some(by_value + i, by_x, count);
      transposed_back(by_own, parameters, count, by_h + i * parameters);
    }
  });
}

}  // namespace
