// Rust with generics, closures and the standard library inlined.
struct Row {
    cells: Vec<u64>,
}

#[inline(never)]
fn rows(count: usize) -> Vec<Row> {
    (0..count).map(|n| Row { cells: (0..n as u64).collect() }).collect()
}

fn main() {
    let table = rows(std::env::args().count() + 3);
    println!("{}", table.iter().map(|row| row.cells.len()).sum::<usize>());
}
