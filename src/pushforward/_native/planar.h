// Planar layers in a row, x = z + u tanh(w·z + b) with u such that w·u > -1: all of them for a tile of rows at a time.
#pragma once

#include <cmath>
#include <limits>

#include "threads.h"
#include "tiles.h"

namespace {

// A layer's parameters, (u, w, b) as they are learnt, and u moved along w until w·u > -1, by an ELU.
template <class T> struct PlanarLayer {
  const T *raw_u, *w;
  std::vector<T> u;
  T b, wu, slope, squared, along;
  bool has_direction;  // w is not 0

  PlanarLayer(const T *parameters, int features)
      : raw_u(parameters), w(parameters + features), u(size_t(features)), b(parameters[2 * features]) {
    T raw = 0;
    squared = 0;
    for (int d = 0; d < features; d++) raw += w[d] * raw_u[d], squared += w[d] * w[d];
    wu = raw > 0 ? raw : std::expm1(raw), slope = raw > 0 ? T(1) : std::exp(raw);
    has_direction = squared >= std::numeric_limits<T>::min();
    along = (wu - raw) / (has_direction ? squared : std::numeric_limits<T>::min());
    for (int d = 0; d < features; d++) u[size_t(d)] = raw_u[d] + along * w[d];
  }

  // From the cotangents by u, w, b and w·u, in this order, to those by the parameters.
  void pull(const T *by, int features, T *by_parameters) const {
    const T *by_u = by, *by_w = by + features, by_b = by[2 * features], by_wu = by[2 * features + 1];
    T by_along = 0;
    for (int d = 0; d < features; d++) by_along += by_u[d] * w[d];
    by_along /= has_direction ? squared : std::numeric_limits<T>::min();
    const T by_raw = (by_wu + by_along) * slope - by_along;
    const T by_squared = has_direction ? -by_along * along : T(0);
    for (int d = 0; d < features; d++) {
      by_parameters[d] = by_u[d] + by_raw * w[d];
      by_parameters[features + d] = by_w[d] + by_u[d] * along + 2 * by_squared * w[d] + by_raw * raw_u[d];
    }
    by_parameters[2 * features] = by_b;
  }
};

template <class T> std::vector<PlanarLayer<T>> planar_layers(int layers, int features, const T *const *parameters) {
  std::vector<PlanarLayer<T>> each;
  for (int k = 0; k < layers; k++) each.emplace_back(parameters[k], features);
  return each;
}

// Tiles that are worth a thread.
inline int64_t planar_grain(int64_t layers, int64_t features, int64_t rows) {
  return 1 + 400'000 / (layers * (features + 10) * rows);
}

// Saved is, for each tile and layer, what goes in and the hyperbolic tangent: (tiles, layers, features + 1, tile_rows), as
// aligned as a vector.
template <class T> Vector<T> *saved_of(T *saved, int features, int64_t layer) {
  return reinterpret_cast<Vector<T> *>(saved) + layer * (features + 1) * tile_vectors;
}

template <class T>
void planar(int layers, int features, const T *const *parameters, int64_t n, const T *z, T *x, T *log_det, T *saved,
            int64_t threads) {
  const auto each = planar_layers(layers, features, parameters);
  const int64_t tiles = whole_tiles<T>(n);
  const int64_t parts = parts_of(tiles, planar_grain(layers, features, tile_rows<T>), threads);
  share(tiles, parts, [&](int64_t first, int64_t last, int64_t) {
    Tile<T> tile({features, 1});
    Vector<T> *value = tile[0], *t = tile[1];
    for (int64_t index = first; index < last; index++) {
      const int64_t row = index * tile_rows<T>;
      const int vectors = vectors_in_use<T>(n - row);
      for (int d = 0; d < features; d++)
        read_column(z + row * features + d, features, n - row, value + d * tile_vectors, Beyond::repeated);
      Vector<T> total[tile_vectors] = {};
      for (int k = 0; k < layers; k++) {
        const PlanarLayer<T> &layer = each[size_t(k)];
        for (int v = 0; v < vectors; v++) {
          Vector<T> a = filled(layer.b);
          for (int d = 0; d < features; d++) a += layer.w[d] * value[d * tile_vectors + v];
          t[v] = hyperbolic_tangent<T>(a);
          total[v] += logarithm_plus_one<T>(layer.wu * (T(1) - t[v] * t[v]));
        }
        if (saved) std::copy_n(value, (features + 1) * tile_vectors, saved_of(saved, features, index * layers + k));
        for (int d = 0; d < features; d++)
          for (int v = 0; v < vectors; v++) value[d * tile_vectors + v] += layer.u[size_t(d)] * t[v];
      }
      for (int d = 0; d < features; d++) write_column(value + d * tile_vectors, features, n - row, x + row * features + d);
      write_column(total, 1, n - row, log_det + row);
    }
  });
}

template <class T>
void planar_pull(int layers, int features, const T *const *parameters, int64_t n, T *saved, const T *by_x,
                 const T *by_log_det, T *by_z, T *const *by_parameters, int64_t threads) {
  const auto each = planar_layers(layers, features, parameters);
  const int64_t tiles = whole_tiles<T>(n);
  const int64_t parts = parts_of(tiles, planar_grain(layers, features, tile_rows<T>), threads);
  const int sums = 2 * features + 2;  // of a layer: by u, w, b and w·u
  std::vector<std::vector<Vector<T>>> totals(size_t(parts), std::vector<Vector<T>>(size_t(layers * sums)));
  share(tiles, parts, [&](int64_t first, int64_t last, int64_t part) {
    Tile<T> tile({features});
    Vector<T> *by = tile[0];
    for (int64_t index = first; index < last; index++) {
      const int64_t row = index * tile_rows<T>;
      const int vectors = vectors_in_use<T>(n - row);
      for (int d = 0; d < features; d++)
        read_column(by_x + row * features + d, features, n - row, by + d * tile_vectors, Beyond::zero);
      Vector<T> by_log[tile_vectors];
      read_column(by_log_det + row, 1, n - row, by_log, Beyond::zero);
      for (int k = layers - 1; k >= 0; k--) {
        const PlanarLayer<T> &layer = each[size_t(k)];
        Vector<T> *total = totals[size_t(part)].data() + k * sums;
        const Vector<T> *value = saved_of(saved, features, index * layers + k), *t = value + features * tile_vectors;
        for (int v = 0; v < vectors; v++) {
          const Vector<T> slope = T(1) - t[v] * t[v], by_factor = by_log[v] / (T(1) + layer.wu * slope);
          Vector<T> by_t = T(-2) * layer.wu * by_factor * t[v];
          for (int d = 0; d < features; d++) by_t += layer.u[size_t(d)] * by[d * tile_vectors + v];
          const Vector<T> by_a = by_t * slope;
          for (int d = 0; d < features; d++) {
            total[d] += by[d * tile_vectors + v] * t[v];
            total[features + d] += by_a * value[d * tile_vectors + v];
            by[d * tile_vectors + v] += by_a * layer.w[d];
          }
          total[2 * features] += by_a;
          total[2 * features + 1] += by_factor * slope;
        }
      }
      for (int d = 0; d < features; d++) write_column(by + d * tile_vectors, features, n - row, by_z + row * features + d);
    }
  });
  std::vector<T> sum(size_t(sums), T(0));
  for (int k = 0; k < layers; k++) {
    std::fill(sum.begin(), sum.end(), T(0));
    for (const auto &part : totals)
      for (int s = 0; s < sums; s++) sum[size_t(s)] += sum_of_lanes<T>(part[size_t(k * sums + s)]);
    each[size_t(k)].pull(sum.data(), features, by_parameters[k]);
  }
}

}  // namespace
