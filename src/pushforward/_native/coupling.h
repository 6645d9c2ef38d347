// A whole coupling layer, tile of rows by tile of rows: its network and its scalar map in one pass, and the gradient.
#pragma once

#include "gradients.h"
#include "threads.h"

namespace {

template <class T, class Map>
void coupling(const Map &map, const Shape &shape, const T *const *parameters, int64_t n, const T *value,
              const T *context, T *out, T *log_det, T *saved, int64_t threads) {
  const int D = shape.columns, P = shape.parameters, L = shape.hidden_layers, passed = shape.inputs - shape.context;
  const int64_t tiles = whole_tiles<T>(n);
  // Units are made a few at a time, and used while they are in the nearest cache.
  const int at_once = 4 * most_units, values_at_once = std::max(1, at_once / P);
  share(tiles, parts_of(tiles, shape.grain(tile_rows<T>), threads), [&](int64_t first, int64_t last, int64_t) {
    Tile<T> tile(shape.blocks(), shape.kept_blocks(), saved);
    for (int64_t index = first; index < last; index++) {
      tile.place(index);
      Vector<T> *log_slopes = tile[shape.log_slopes_block()], *found = tile[shape.found_block()];
      const int64_t row = index * tile_rows<T>;
      const int vectors = vectors_in_use<T>(n - row), halves = halves_in_use<T>(n - row);
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
          product(halves, weight_of(parameters, layer) + int64_t(start) * inputs, inputs, made, inputs, tile[layer], before);
          for (int j = 0; j < made * tile_vectors; j++) after[j] = activated<T>(shape.activation, before[j]);
        }
      }
      Vector<T> total[tile_vectors] = {};
      for (int start = 0; start < shape.moved; start += values_at_once) {
        const int values = std::min(values_at_once, shape.moved - start), inputs = shape.seen(L);
        Vector<T> *h = tile[shape.h_block()] + start * P * tile_vectors;
        fill_with(bias_of(parameters, L) + start * P, values * P, h);
        product(halves, weight_of(parameters, L) + int64_t(start) * P * inputs, inputs, values * P, inputs, tile[L], h);
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
    }
  });
}

// Cotangents of the value, the context, and the weights and biases.
template <class T, class Map>
void coupling_pull(const Map &map, const Shape &shape, const T *const *parameters, int64_t n, const T *value, T *saved,
                   const T *by_out, const T *by_log_det, T *by_value, T *by_context, T *const *by_parameters, int64_t threads) {
  const int D = shape.columns, P = shape.parameters, L = shape.hidden_layers, passed = shape.inputs - shape.context;
  const int64_t tiles = whole_tiles<T>(n);
  std::vector<int> units;
  for (int layer = 0; layer <= L; layer++) units.push_back(shape.made(layer));
  units.push_back(shape.inputs);
  const auto sees = [&](int layer, int) { return shape.seen(layer); };
  const auto work = [&](int64_t first, int64_t last, Gradients<T> *gradients) {
    Tile<T> tile(units), kept(shape.blocks(), shape.kept_blocks(), saved);
    for (int64_t index = first; index < last; index++) {
      kept.place(index);
      const Vector<T> *h = kept[shape.h_block()], *found = kept[shape.found_block()], *log_slopes = kept[shape.log_slopes_block()];
      const int64_t row = index * tile_rows<T>;
      const int vectors = vectors_in_use<T>(n - row), halves = halves_in_use<T>(n - row);
      Vector<T> by_log[tile_vectors];
      read_column(by_log_det + row, 1, n - row, by_log, Beyond::zero);
      for (int i = 0; i < shape.moved; i++) {
        const int column = shape.moved_at[i];
        Vector<T> given[tile_vectors], by_found[tile_vectors], by_given[tile_vectors];
        read_column(value + row * D + column, D, n - row, given, Beyond::repeated);
        read_column(by_out + row * D + column, D, n - row, by_found, Beyond::zero);
        for (int v = 0; v < vectors; v++) {
          const int j = i * tile_vectors + v, own = i * P * tile_vectors + v;
          map.pull(given[v], h + own, tile_vectors, found[j], log_slopes[j], by_found[v], by_log[v], by_given[v], tile[L] + own);
        }
        write_column(by_given, D, n - row, by_value + row * D + column);
      }
      for (int layer = L; layer >= 0; layer--) {
        const int width = shape.seen(layer);
        const Vector<T> *by_made = tile[layer];
        Vector<T> *by_seen = tile[layer ? layer - 1 : L + 1];
        if (gradients)
          gradients->add(layer, int(std::min<int64_t>(n - row, tile_rows<T>)), by_made, kept[layer], sees);
        product<T, true>(halves, weight_of(parameters, layer), width, width, shape.made(layer), by_made, by_seen, false);
        if (layer) pull_activation<T>(shape, vectors, width, kept[shape.slope_block(layer - 1)], by_seen);
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
