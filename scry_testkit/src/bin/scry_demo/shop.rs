//! The shop's live load: customers order, cancel and return; clerks pack, change
//! prices and restock.

use postgres::{Client, Error, Transaction};
use scry_testkit::Rng;
use scry_testkit::load::{Outcome, Workload};

/// The shop's tables and rows.
pub const SCHEMA: &str = include_str!("../../../demo/shop.sql");

/// Rows that the shop starts with.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Rows of `users`.
    pub users: i64,
    /// Rows of `products`.
    pub products: i64,
    /// Rows of `orders`; `order_items` has twice as many.
    pub orders: i64,
}

/// One customer or clerk after the other.
#[derive(Debug, Clone)]
pub struct Shop {
    size: Size,
    writer: u64,
    new_users: u64,
}

impl Shop {
    /// The work of writer number `writer` in a shop of this size.
    pub fn new(size: Size, writer: u64) -> Shop {
        Shop { size, writer, new_users: 0 }
    }

    /// A new order with its items; the stock goes down in the same transaction.
    fn order(&self, tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
        let address = format!("{{\"street\": \"{}\", \"zip\": {}}}", rng.hex(12), rng.below(99_999));
        let sql = "INSERT INTO orders (user_id, state, address, notes) VALUES ($1, 'paid', $2::text::jsonb, $3) RETURNING id";
        let notes = rng.chance(5).then(|| rng.hex(3000));
        let id: i64 = tx.query_one(sql, &[&rng.between(1, self.size.users), &address, &notes])?.get(0);
        for line in 1..=rng.between(1, 4) as i16 {
            let product = rng.between(1, self.size.products) as i32;
            let quantity = rng.between(1, 5) as i32;
            let sql = "INSERT INTO order_items (order_id, line, product_id, quantity, price) \
                       SELECT $1, $2, id, $4, price FROM products WHERE id = $3";
            tx.execute(sql, &[&id, &line, &product, &quantity])?;
            tx.execute("UPDATE products SET stock = stock - $2 WHERE id = $1", &[&product, &quantity])?;
        }
        let sql = "UPDATE orders SET total = (SELECT sum(amount) FROM order_items WHERE order_id = id) WHERE id = $1";
        tx.execute(sql, &[&id]).map(drop)
    }

    /// An order goes one state further.
    fn advance(&self, tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
        let sql = "UPDATE orders SET state = CASE state WHEN 'cart' THEN 'paid' WHEN 'paid' THEN 'packed' \
                   WHEN 'packed' THEN 'shipped' ELSE 'returned' END::order_state, \
                   shipped_at = CASE WHEN state = 'packed' THEN localtimestamp ELSE shipped_at END WHERE id = $1";
        tx.execute(sql, &[&rng.between(1, self.size.orders)]).map(drop)
    }

    /// An order is cancelled; its items go with it (ON DELETE CASCADE).
    fn cancel(&self, tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
        tx.execute("DELETE FROM orders WHERE id = $1", &[&rng.between(1, self.size.orders)]).map(drop)
    }

    /// A new customer, with a long biography now and then.
    fn register(&mut self, tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
        self.new_users += 1;
        let email = format!("new{}.{}@example.com", self.writer, self.new_users);
        let biography = rng.chance(20).then(|| rng.hex(6000));
        let sql =
            "INSERT INTO users (email, name, tier, biography) VALUES ($1::text::email, $2, 'regular', $3)";
        tx.execute(sql, &[&email, &format!("New {}", rng.hex(8)), &biography]).map(drop)
    }

    /// Settings change; the biography beside them stays where it is.
    fn configure(&self, tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
        let sql = "UPDATE users SET settings = settings || jsonb_build_object('page', $2::int8), \
                   tags = array_append(tags, 'seen'), credit = credit + 0.01 WHERE id = $1";
        tx.execute(sql, &[&rng.between(1, self.size.users), &rng.between(1, 500)]).map(drop)
    }

    /// A clerk changes the prices of a category's part at once.
    fn reprice(&self, tx: &mut Transaction<'_>, rng: &mut Rng) -> Result<(), Error> {
        let sql = "UPDATE products SET price = round(price * 1.01, 2), stock = stock + 50 WHERE id BETWEEN $1 AND $1 + 30";
        tx.execute(sql, &[&(rng.between(1, self.size.products) as i32)]).map(drop)
    }
}

impl Workload for Shop {
    fn transaction(&mut self, client: &mut Client, rng: &mut Rng) -> Result<Outcome, Error> {
        let mut tx = client.transaction()?;
        match rng.below(20) {
            0..=8 => self.order(&mut tx, rng)?,
            9..=12 => self.advance(&mut tx, rng)?,
            13..=15 => self.configure(&mut tx, rng)?,
            16 => self.register(&mut tx, rng)?,
            17 => self.cancel(&mut tx, rng)?,
            18 => self.reprice(&mut tx, rng)?,
            _ => {
                // Second thoughts: a part is taken back, the rest stays.
                let mut part = tx.transaction()?;
                self.order(&mut part, rng)?;
                part.rollback()?;
                self.configure(&mut tx, rng)?;
            }
        }
        if rng.chance(4) {
            tx.rollback()?;
            return Ok(Outcome::RolledBack);
        }
        tx.commit()?;
        Ok(Outcome::Committed)
    }
}
