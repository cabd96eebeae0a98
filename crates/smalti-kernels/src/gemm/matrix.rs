//! Views of matrices in slices.

/// A read-only matrix: element (i, j) is `data[i · row_stride + j · col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Values from one row to the next.
    pub row_stride: usize,
    /// Values from one column to the next.
    pub col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `rows x cols` values, row after row.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::with_strides(data, [rows, cols], [cols, 1])
    }

    /// A matrix of shape `[rows, cols]` with strides `[row, column]`.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn with_strides(data: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        let [rows, cols] = shape;
        let [row_stride, col_stride] = strides;
        let matrix = Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        };
        matrix.check();
        matrix
    }

    /// The transpose: the same data, read the other way.
    pub fn transposed(self) -> Self {
        let Self {
            data,
            rows,
            cols,
            row_stride,
            col_stride,
        } = self;
        Self {
            data,
            rows: cols,
            cols: rows,
            row_stride: col_stride,
            col_stride: row_stride,
        }
    }

    /// The matrix of the same shape that starts `step` values later.
    pub(super) fn moved(self, step: usize) -> Self {
        let moved = Self {
            data: self.data.get(step..).unwrap_or_default(),
            ..self
        };
        moved.check();
        moved
    }

    /// Where element (row, column) lies.
    pub(super) fn at(&self, row: usize, col: usize) -> *const f32 {
        debug_assert!(row <= self.rows && col <= self.cols);
        self.data
            .as_ptr()
            .wrapping_add(row * self.row_stride + col * self.col_stride)
    }

    fn check(&self) {
        let needed = match (self.rows, self.cols) {
            (0, _) | (_, 0) => 0,
            (rows, cols) => (rows - 1) * self.row_stride + (cols - 1) * self.col_stride + 1,
        };
        let (rows, cols, len) = (self.rows, self.cols, self.data.len());
        assert!(
            len >= needed,
            "a {rows}x{cols} matrix with these strides needs {needed} values, {len} were given"
        );
    }
}

/// A matrix to write: rows are contiguous, `row_stride` values apart.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// `rows x cols` values, row after row.
    ///
    /// # Panics
    /// When `data` is too short.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::with_row_stride(data, rows, cols, cols)
    }

    /// Rows `row_stride` values apart.
    ///
    /// # Panics
    /// When `data` is too short, or rows overlap.
    pub fn with_row_stride(
        data: &'a mut [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Self {
        assert!(
            row_stride >= cols || rows <= 1,
            "rows of {cols} values cannot be {row_stride} apart"
        );
        let matrix = Self {
            data,
            rows,
            cols,
            row_stride,
        };
        let (needed, len) = (matrix.span(), matrix.data.len());
        assert!(
            len >= needed,
            "a {rows}x{cols} result needs {needed} values, {len} were given"
        );
        matrix
    }

    /// Values from the first element to the end of the last row.
    pub(super) fn span(&self) -> usize {
        if self.rows == 0 {
            0
        } else {
            (self.rows - 1) * self.row_stride + self.cols
        }
    }

    pub(super) fn data_mut(&mut self) -> &mut [f32] {
        self.data
    }
}
