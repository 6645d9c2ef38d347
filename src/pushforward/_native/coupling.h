// A whole coupling layer, tile of rows by tile of rows: its network and its scalar map in one pass, and the gradient.
#pragma once

#include "gradients.h"
#include "threads.h"

namespace {

template <class T, class Map>
void coupling(const Map &map, const Shape &shape, const T *const *parameters, int64_t n, const T *value,
              const T *context, T *out, T *log_det, T *saved, int64_t threads) {
  const int D = shape.columns, P = shape.parameters, L = shape.hidden_layers, passed = shape.inputs - shape.context;
  const int64_t tiles = (n + tile_rows<T> - 1) / tile_rows<T>, stride = saved_stride<T>(n);
  const std::vector<int> units = shape.blocks();
  // Units are made a few at a time, and used while they are in the nearest cache.
  const int at_once = 4 * most_units, values_at_once = std::max(1, at_once / P);
  share(tiles, parts_of(tiles, shape.grain(tile_rows<T>), threads), [&](int64_t first, int64_t last, int64_t) {
    Scratch<T> tile(units);
    Vector<T> *log_slopes = tile[shape.log_slopes_block()], *found = tile[shape.found_block()];
    for (int64_t row = first * tile_rows<T>; row < std::min(n, last * tile_rows<T>); row += tile_rows<T>) {
      const int vectors = vectors_in_use<T>(n - row);
      for (int i = 0; i < passed; i++) {
        const int column = shape.passed_at[i];
        Vector<T> *seen = tile[0] + i * tile_vectors;
        read_column(value + row * D + column, D, n - row, seen, Beyond::repeated);
        write_column(seen, D, n - row, out + row * D + column);
      }
      for (int c = 0; c < shape.context; c++)
        read_column(context + row * shape.context + c, shape.context, n - row, tile[0] + (passed + c) * tile_vectors,
                    Beyond::repeated);
      for (int layer = 0; layer < L; layer++) {
        const int width = shape.widths[layer], inputs = shape.seen(layer);
        for (int start = 0; start < width; start += at_once) {
          const int made = std::min(at_once, width - start);
          Vector<T> *before = tile[shape.slope_block(layer)] + start * tile_vectors, *after = tile[layer + 1] + start * tile_vectors;
          fill_with(bias_of(parameters, layer) + start, made, before);
          product(vectors, weight_of(parameters, layer) + int64_t(start) * inputs, inputs, made, inputs, tile[layer], before);
          for (int j = 0; j < made * tile_vectors; j++) after[j] = activated<T>(shape.activation, before[j]);
        }
      }
      Vector<T> total[tile_vectors] = {};
      for (int start = 0; start < shape.moved; start += values_at_once) {
        const int values = std::min(values_at_once, shape.moved - start), inputs = shape.seen(L);
        Vector<T> *h = tile[shape.h_block()] + start * P * tile_vectors;
        fill_with(bias_of(parameters, L) + start * P, values * P, h);
        product(vectors, weight_of(parameters, L) + int64_t(start) * P * inputs, inputs, values * P, inputs, tile[L], h);
        for (int i = start; i < start + values; i++) {
          const int column = shape.moved_at[i];
          Vector<T> given[tile_vectors];
          read_column(value + row * D + column, D, n - row, given, Beyond::repeated);
          for (int v = 0; v < vectors; v++) {
            map.apply(given[v], h + (i - start) * P * tile_vectors + v, tile_vectors, found[i * tile_vectors + v],
                      log_slopes[i * tile_vectors + v]);
            total[v] += log_slopes[i * tile_vectors + v];
          }
          write_column(found + i * tile_vectors, D, n - row, out + row * D + column);
        }
      }
      write_column(total, 1, n - row, log_det + row);
      if (saved) write_tile(tile[0], shape.saved_units(), saved + row, stride);
    }
  });
}

// Cotangents of the value, the context, and the weights and biases.
template <class T, class Map>
void coupling_pull(const Map &map, const Shape &shape, const T *const *parameters, int64_t n, const T *value, const T *saved,
                   const T *by_out, const T *by_log_det, T *by_value, T *by_context, T *const *by_parameters, int64_t threads) {
  const int D = shape.columns, P = shape.parameters, L = shape.hidden_layers, passed = shape.inputs - shape.context;
  const int64_t tiles = (n + tile_rows<T> - 1) / tile_rows<T>, stride = saved_stride<T>(n);
  const Saved<T> kept(shape.blocks(), saved, stride);
  std::vector<int> units;
  for (int layer = 0; layer <= L; layer++) units.push_back(shape.made(layer));
  units.push_back(shape.inputs);
  const auto sees = [&](int layer, int) { return shape.seen(layer); };
  const auto work = [&](int64_t first, int64_t last, Gradients<T> *gradients) {
    Scratch<T> tile(units);
    std::vector<Vector<T>> h(size_t(P) * tile_vectors);
    for (int64_t row = first * tile_rows<T>; row < std::min(n, last * tile_rows<T>); row += tile_rows<T>) {
      const int vectors = vectors_in_use<T>(n - row);
      Vector<T> by_log[tile_vectors];
      read_column(by_log_det + row, 1, n - row, by_log, Beyond::zero);
      for (int i = 0; i < shape.moved; i++) {
        const int column = shape.moved_at[i];
        Vector<T> given[tile_vectors], found[tile_vectors], slopes[tile_vectors], by_found[tile_vectors], by_given[tile_vectors];
        read_column(value + row * D + column, D, n - row, given, Beyond::repeated);
        read_column(by_out + row * D + column, D, n - row, by_found, Beyond::zero);
        kept.read(shape.found_block(), i, 1, row, found);
        kept.read(shape.log_slopes_block(), i, 1, row, slopes);
        kept.read(shape.h_block(), int64_t(i) * P, P, row, h.data());
        for (int v = 0; v < vectors; v++)
          map.pull(given[v], h.data() + v, tile_vectors, found[v], slopes[v], by_found[v], by_log[v], by_given[v],
                   tile[L] + i * P * tile_vectors + v);
        write_column(by_given, D, n - row, by_value + row * D + column);
      }
      for (int layer = L; layer >= 0; layer--) {
        const int width = shape.seen(layer);
        const Vector<T> *by_made = tile[layer];
        Vector<T> *by_seen = tile[layer ? layer - 1 : L + 1];
        if (gradients)
          gradients->add(layer, int(std::min<int64_t>(n - row, tile_rows<T>)), by_made, kept.at(layer, 0, row), stride, sees);
        product<T, true>(vectors, weight_of(parameters, layer), width, width, shape.made(layer), by_made, by_seen, false);
        if (layer)
          for (int u = 0; u < width; u++) {
            Vector<T> unit[tile_vectors];
            kept.read(shape.slope_block(layer - 1), u, 1, row, unit);
            for (int v = 0; v < vectors; v++) by_seen[u * tile_vectors + v] *= slope_of_activation<T>(shape.activation, unit[v]);
          }
      }
      if (gradients) gradients->finish_tile();
      Vector<T> *by_seen = tile[L + 1];
      for (int i = 0; i < passed; i++) {
        const int column = shape.passed_at[i];
        Vector<T> straight[tile_vectors];
        read_column(by_out + row * D + column, D, n - row, straight, Beyond::zero);
        for (int v = 0; v < vectors; v++) by_seen[i * tile_vectors + v] += straight[v];
        write_column(by_seen + i * tile_vectors, D, n - row, by_value + row * D + column);
      }
      if (by_context)
        for (int c = 0; c < shape.context; c++)
          write_column(by_seen + (passed + c) * tile_vectors, shape.context, n - row, by_context + row * shape.context + c);
    }
  };
  with_gradients<T>(shape, tiles, threads, by_parameters, sees, work);
}

}  // namespace
