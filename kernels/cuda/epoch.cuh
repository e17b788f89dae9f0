// Where in its epochs the card is: a graph repeats its launches with the same arguments, so whatever is another in each
// step is found through this.
#pragma once

// turn (2,): steps taken, and rows visited, when the graph began. A launch adds what is before it in the graph: `step`
// steps and `visit` rows.
enum : int { STEPS_TAKEN, ROWS_VISITED };

// The row of the data that is visit n. order (V,); null: rows are visited as they stand.
__device__ inline long long row_of(const int* order, long long n) { return order ? order[n] : n; }
