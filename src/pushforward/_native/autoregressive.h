// A whole masked autoregressive layer, tile of rows by tile of rows: its network and its scalar map in one pass, in
// either direction, and the transposed pass of the gradient. Each hidden unit is computed once.
//
// Hidden units are sorted by the number of columns that they see, so that what is known before column i is a prefix, and
// the products stop there: about half of those of a dense network.
#pragma once

#include "gradients.h"
#include "threads.h"

namespace {

// The hidden units of a layer that become known with column i.
INLINE int first_new(const Shape &shape, int layer, int i) { return i ? shape.known[layer * shape.moved + i - 1] : 0; }
INLINE int last_new(const Shape &shape, int layer, int i) { return shape.known[layer * shape.moved + i]; }

// out and log_det of a layer. If `sequential`, what each unit sees are the values that come out, else those given.
template <class T, class Map>
void autoregressive(const Map &map, const Shape &shape, bool sequential, const T *const *parameters, int64_t n,
                    const T *value, const T *context, T *out, T *log_det, T *saved, int64_t threads) {
  const int D = shape.columns, P = shape.parameters, L = shape.hidden_layers;
  const int64_t tiles = whole_tiles<T>(n);
  share(tiles, parts_of(tiles, shape.grain(tile_rows<T>), threads), [&](int64_t first, int64_t last, int64_t) {
    Tile<T> tile(shape.blocks(), shape.kept_blocks(), saved);
    for (int64_t index = first; index < last; index++) {
      tile.place(index);
      Vector<T> *h = tile[shape.h_block()], *log_slopes = tile[shape.log_slopes_block()], *found = tile[shape.found_block()];
      const int64_t row = index * tile_rows<T>;
      const int vectors = vectors_in_use<T>(n - row), halves = halves_in_use<T>(n - row);
      for (int c = 0; c < shape.context; c++)
        read_column(context + row * shape.context + c, shape.context, n - row, tile[0] + c * tile_vectors, Beyond::repeated);
      Vector<T> total[tile_vectors] = {};
      for (int i = 0; i < D; i++) {
        for (int layer = 0; layer < L; layer++) {
          const int a = first_new(shape, layer, i), e = last_new(shape, layer, i), inputs = shape.seen(layer);
          Vector<T> *before = tile[shape.before_block(layer)], *after = tile[layer + 1];
          fill_with(bias_of(parameters, layer) + a, e - a, before + a * tile_vectors);
          if (layer && shape.residual) {
            const Vector<T> *earlier = tile[shape.before_block(layer - 1)];
            for (int j = a * tile_vectors; j < e * tile_vectors; j++) before[j] += earlier[j];
          }
          product(halves, weight_of(parameters, layer) + int64_t(a) * inputs, inputs, e - a,
                  layer ? last_new(shape, layer - 1, i) : shape.context + i, tile[layer], before + a * tile_vectors);
          for (int j = a * tile_vectors; j < e * tile_vectors; j++) after[j] = activated<T>(shape.activation, before[j]);
        }
        Vector<T> *own = h + i * P * tile_vectors;
        fill_with(bias_of(parameters, L) + i * P, P, own);
        const int inputs = shape.seen(L);
        product(halves, weight_of(parameters, L) + int64_t(i) * P * inputs, inputs, P, last_new(shape, L - 1, i), tile[L], own);
        Vector<T> given[tile_vectors];
        const int column = shape.moved_at[i];
        read_column(value + row * D + column, D, n - row, given, Beyond::repeated);
        for (int v = 0; v < vectors; v++) {
          const int j = i * tile_vectors + v;
          map.apply(given[v], own + v, tile_vectors, found[j], log_slopes[j]);
          total[v] += log_slopes[j];
          tile[0][shape.context * tile_vectors + j] = sequential ? found[j] : given[v];
        }
        write_column(found + i * tile_vectors, D, n - row, out + row * D + column);
      }
      write_column(total, 1, n - row, log_det + row);
    }
  });
}

// How many of the units that a layer sees count for unit u of those that it makes, and its followers up to the same
// column.
INLINE int units_seen(const Shape &shape, int layer, int u) {
  int i = u / shape.parameters;
  if (layer < shape.hidden_layers) {
    const int *known = shape.known + layer * shape.moved;
    i = int(std::upper_bound(known, known + shape.moved, u) - known);
  }
  return layer ? last_new(shape, layer - 1, i) : shape.context + i;
}

// The transposed pass: cotangents of the value, the context, and the weights and biases.
template <class T, class Map>
void autoregressive_pull(const Map &map, const Shape &shape, bool sequential, const T *const *parameters, int64_t n,
                         const T *value, T *saved, const T *by_out, const T *by_log_det, T *by_value, T *by_context,
                         T *const *by_parameters, int64_t threads) {
  const int D = shape.columns, P = shape.parameters, L = shape.hidden_layers;
  const int64_t tiles = whole_tiles<T>(n);
  std::vector<int> units;
  for (int layer = 0; layer <= L; layer++) units.push_back(shape.made(layer));
  units.push_back(shape.context);
  const auto sees = [&](int layer, int u) { return units_seen(shape, layer, u); };
  const auto work = [&](int64_t first, int64_t last, Gradients<T> *gradients) {
    Tile<T> tile(units), kept(shape.blocks(), shape.kept_blocks(), saved);
    Vector<T> *by_h = tile[L];
    for (int64_t index = first; index < last; index++) {
      kept.place(index);
      const Vector<T> *h = kept[shape.h_block()], *found = kept[shape.found_block()], *log_slopes = kept[shape.log_slopes_block()];
      const int64_t row = index * tile_rows<T>;
      const int vectors = vectors_in_use<T>(n - row), halves = halves_in_use<T>(n - row);
      Vector<T> by_log[tile_vectors];
      read_column(by_log_det + row, 1, n - row, by_log, Beyond::zero);
      for (int i = D - 1; i >= 0; i--) {
        const int column = shape.moved_at[i], later = last_new(shape, 0, i);
        Vector<T> by_seen[tile_vectors] = {};
        product<T, true>(halves, weight_of(parameters, 0) + int64_t(later) * shape.inputs + shape.context + i, shape.inputs, 1,
                         shape.widths[0] - later, tile[0] + later * tile_vectors, by_seen);
        Vector<T> given[tile_vectors], by_found[tile_vectors], by_given[tile_vectors];
        if (sequential)
          read_column(value + row * D + column, D, n - row, given, Beyond::repeated);
        else  // what the network saw lies side by side already
          std::copy_n(kept[0] + (shape.context + i) * tile_vectors, vectors, given);
        read_column(by_out + row * D + column, D, n - row, by_found, Beyond::zero);
        for (int v = 0; v < vectors; v++) {
          if (sequential) by_found[v] += by_seen[v];
          const int j = i * tile_vectors + v, own = i * P * tile_vectors + v;
          map.pull(given[v], h + own, tile_vectors, found[j], log_slopes[j], by_found[v], by_log[v], by_given[v], by_h + own);
          if (!sequential) by_given[v] += by_seen[v];
        }
        write_column(by_given, D, n - row, by_value + row * D + column);
        for (int layer = L - 1; layer >= 0; layer--) {
          const int a = first_new(shape, layer, i), e = last_new(shape, layer, i), width = shape.widths[layer];
          const int start = layer == L - 1 ? i * P : first_new(shape, layer + 1, i), outputs = shape.made(layer + 1);
          Vector<T> *by_layer = tile[layer];
          product<T, true>(halves, weight_of(parameters, layer + 1) + int64_t(start) * width + a, width, e - a, outputs - start,
                           tile[layer + 1] + start * tile_vectors, by_layer + a * tile_vectors, false);
          pull_activation<T>(shape, vectors, e - a, kept[shape.slope_block(layer)] + a * tile_vectors, by_layer + a * tile_vectors);
          if (shape.residual && layer < L - 1)
            for (int j = a * tile_vectors; j < e * tile_vectors; j++) by_layer[j] += tile[layer + 1][j];
        }
      }
      if (by_context) {
        Vector<T> *by = tile[L + 1];
        product<T, true>(halves, weight_of(parameters, 0), shape.inputs, shape.context, shape.widths[0], tile[0], by, false);
        for (int c = 0; c < shape.context; c++)
          write_column(by + c * tile_vectors, shape.context, n - row, by_context + row * shape.context + c);
      }
      for (int layer = 0; gradients && layer <= L; layer++)
        gradients->add(layer, int(std::min<int64_t>(n - row, tile_rows<T>)), tile[layer], kept[layer], sees);
      if (gradients) gradients->finish_tile();
    }
  };
  with_gradients<T>(shape, tiles, threads, by_parameters, sees, work);
}

}  // namespace
