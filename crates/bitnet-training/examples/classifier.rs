//! A classifier of handwritten digits with ternary layers, trained in seconds.
//!
//! ```text
//! cargo run --release -p bitnet-training --example classifier                 digits made on the spot
//! cargo run --release -p bitnet-training --example classifier -- digits.csv   those of scikit-learn
//! ```
//!
//! The second takes a file with 64 brightnesses from 0 to 16 and a class in each line, which Python writes so:
//!
//! ```python
//! import numpy as np
//! from sklearn.datasets import load_digits
//! digits = load_digits()
//! np.savetxt("digits.csv", np.column_stack([digits.data, digits.target]), fmt="%g", delimiter=",")
//! ```

use bitnet_core::{BitNetDType, BitNetTensor, Device, Generator};
use bitnet_training::module::{Classifier, Module};
use bitnet_training::optim::{Group, GroupedOptimizer, Optimizer, Rule, clip_grad_norm};
use std::error::Error;
use std::time::Instant;

const PIXELS: usize = 64;
const CLASSES: usize = 10;

/// Images of 8 x 8 brightnesses from 0 to 1, and what they show.
struct Digits {
    images: Vec<[f32; PIXELS]>,
    classes: Vec<i64>,
}

/// Five columns and seven rows of each digit, the bits of a row from the left.
const GLYPHS: [[u8; 7]; CLASSES] = [
    [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
    [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
    [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111],
    [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
    [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
    [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
    [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
    [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
    [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
    [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
];

/// Digits of a small font at one of eight places, of any brightness, with noise.
fn made(count: usize, generator: &mut Generator) -> Result<Digits, Box<dyn Error>> {
    let cpu = Device::cpu();
    let noise = BitNetTensor::randn(&[count, PIXELS], BitNetDType::F32, &cpu, generator)?.to_vec::<f32>()?;
    let draw = BitNetTensor::rand(&[count, 3], BitNetDType::F32, &cpu, generator)?.to_vec::<f32>()?;
    let mut digits = Digits { images: Vec::new(), classes: Vec::new() };
    for (i, noise) in noise.as_chunks::<PIXELS>().0.iter().enumerate() {
        let [across, down, bright] = [draw[3 * i], draw[3 * i + 1], draw[3 * i + 2]];
        let (left, top) = ((across * 4.) as usize, (down * 2.) as usize);
        let class = i % CLASSES;
        let mut image = [0.; PIXELS];
        for (pixel, (value, noise)) in image.iter_mut().zip(noise).enumerate() {
            let (row, column) = ((pixel / 8).wrapping_sub(top), (pixel % 8).wrapping_sub(left));
            let ink = row < 7 && column < 5 && GLYPHS[class][row] >> (4 - column) & 1 == 1;
            *value = (f32::from(u8::from(ink)) * (0.5 + 0.5 * bright) + 0.2 * noise).clamp(0., 1.);
        }
        digits.images.push(image);
        digits.classes.push(class as i64);
    }
    Ok(digits)
}

fn read(path: &str) -> Result<Digits, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let mut digits = Digits { images: Vec::new(), classes: Vec::new() };
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |what: &str| format!("{path}:{}: {what}", number + 1);
        let values = line.split(',').map(|value| value.trim().parse::<f32>());
        let values = values.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e.to_string()))?;
        let [pixels @ .., class] = &values[..] else { return Err(wrong("empty").into()) };
        let pixels: &[f32; PIXELS] = pixels.try_into().map_err(|_| wrong("needed are 64 brightnesses and a class"))?;
        if !(0. ..CLASSES as f32).contains(class) {
            return Err(wrong("the class is a digit").into());
        }
        digits.images.push(pixels.map(|pixel| pixel / 16.));
        digits.classes.push(*class as i64);
    }
    Ok(digits)
}

/// The rows that `order` names, as tensors `[N, 64]` and `[N]`.
fn batch(digits: &Digits, order: &[i64]) -> Result<(BitNetTensor, BitNetTensor), Box<dyn Error>> {
    let cpu = Device::cpu();
    let images: Vec<f32> = order.iter().flat_map(|&i| digits.images[i as usize]).collect();
    let classes: Vec<i64> = order.iter().map(|&i| digits.classes[i as usize]).collect();
    Ok((
        BitNetTensor::from_slice(&images, &[order.len(), PIXELS], &cpu)?,
        BitNetTensor::from_slice(&classes, &[order.len()], &cpu)?,
    ))
}

fn main() -> Result<(), Box<dyn Error>> {
    let cpu = Device::cpu();
    let mut generator = Generator::new(1);
    let digits = match std::env::args().nth(1) {
        Some(path) => read(&path)?,
        None => made(1800, &mut generator)?,
    };
    // A fifth of them is kept to test on.
    let order = BitNetTensor::randperm(digits.classes.len(), &cpu, &mut generator)?.to_vec::<i64>()?;
    let (test, train) = order.split_at(order.len() / 5);
    let (test_images, test_classes) = batch(&digits, test)?;

    let mut classifier = Classifier::new(&[PIXELS, 128, 128, CLASSES], &mut generator, &cpu)?;
    let mut optimizer = GroupedOptimizer::new(vec![Group::new(Rule::adamw(), 3e-3).decayed(0.01)])?;
    let (began, epochs) = (Instant::now(), 30);
    for epoch in 1..=epochs {
        let shuffled = BitNetTensor::randperm(train.len(), &cpu, &mut generator)?.to_vec::<i64>()?;
        let shuffled: Vec<i64> = shuffled.iter().map(|&i| train[i as usize]).collect();
        let mut last = 0.;
        optimizer.set_learning_rate(0, 3e-3 * (1. - f64::from(epoch - 1) / f64::from(epochs)));
        for part in shuffled.chunks(32) {
            let (images, classes) = batch(&digits, part)?;
            classifier.zero_grad();
            let loss = classifier.loss(&images, &classes)?;
            loss.backward()?;
            clip_grad_norm(&classifier.parameters(), 1.)?;
            optimizer.step(classifier.parameters_mut())?;
            last = loss.item::<f32>()?;
        }
        if epoch % 10 == 0 {
            println!("epoch {epoch}: loss {last:.4}");
        }
    }
    let right = classifier.classify(&test_images)?.eq(&test_classes)?.count_nonzero(..)?.item::<i64>()?;
    let parameters = classifier.parameter_count();
    let ternary: usize = classifier.layers().iter().map(|layer| layer.weight().elements()).sum();
    println!("{parameters} weights, {ternary} of them ternary, trained in {:.1} s", began.elapsed().as_secs_f64());
    println!("{right} of {} test digits are right: {:.1} %", test.len(), 100. * right as f64 / test.len() as f64);
    Ok(())
}
