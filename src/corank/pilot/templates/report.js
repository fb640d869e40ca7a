"use strict";
const box = document.getElementById("front-box");
const slider = document.getElementById("front-slider");
const rows = [...document.querySelectorAll("#front-table tbody tr")];
const outputs = [...document.querySelectorAll("[data-column]")];
const read = (cell, part) => [...cell.querySelectorAll(part)].map((one) => one.textContent).join(" · ");
const show = () => {
  const place = Number(slider.value);
  rows.forEach((row, other) => row.classList.toggle("shown", other === place));
  document.querySelectorAll('[id*="-ring"]').forEach((ring) => {
    ring.classList.toggle("shown", ring.id.endsWith(`-ring${place}`));
  });
  const cells = rows[place].querySelectorAll("td");
  outputs.forEach((output) => {
    const cell = cells[Number(output.dataset.column)];
    output.querySelector(".value").textContent = read(cell, ".value");
    output.querySelector(".note").textContent = read(cell, ".note");
  });
  document.getElementById("front-said").textContent = rows[place].dataset.said;
  slider.setAttribute("aria-valuetext", rows[place].dataset.said);
};
box.hidden = false;
slider.addEventListener("input", show);
show();
