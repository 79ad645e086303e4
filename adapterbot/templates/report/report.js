// Reads the samples that lie in the page as JSON, and shows them a page at a time. All text of
// theirs becomes text nodes, never markup.
"use strict";

const PER_PAGE = 25;
// Above this many pairs of words, two answers are shown as wholly different instead of compared.
const MOST_PAIRS = 4_000_000;

/** A new element with a class and children, of which strings become text. */
function element(name, style, ...children) {
  const made = document.createElement(name);
  if (style) made.className = style;
  made.append(...children);
  return made;
}

/** The words, runs of blanks and single signs of a text; joined they are the text again. */
function words(text) {
  return text.match(/[\p{L}\p{N}\p{M}_]+|\s+|[^]/gu) ?? [];
}

/**
 * Which words of `a` and of `b` are not part of a longest common subsequence of both.
 * Returns two arrays of booleans, one for each word.
 */
function differing(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  const most = Math.min(a.length, b.length) - start;
  while (end < most && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const rows = a.length - start - end;
  const columns = b.length - start - end;
  const inA = a.map((_, i) => i >= start && i < a.length - end);
  const inB = b.map((_, i) => i >= start && i < b.length - end);
  if (rows * columns > MOST_PAIRS) return [inA, inB];
  // lengths[i][j]: of the longest common subsequence of what follows a[i] and b[j].
  const width = columns + 1;
  const lengths = new Uint16Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      lengths[i * width + j] =
        a[start + i] === b[start + j]
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < rows && j < columns; ) {
    if (a[start + i] === b[start + j]) {
      inA[start + i] = inB[start + j] = false;
      i += 1;
      j += 1;
    } else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return [inA, inB];
}

/** A text as a `<pre>`, neighbouring marked words together in one `mark` element. */
function answer(text, mark, parts = [text], marked = [false]) {
  const block = element("pre");
  if (text === "") block.append(element("span", "empty", "(empty)"));
  for (let i = 0; i < parts.length; ) {
    let next = i;
    while (next < parts.length && marked[next] === marked[i]) next += 1;
    const run = parts.slice(i, next).join("");
    block.append(marked[i] ? element(mark, "", run) : run);
    i = next;
  }
  return block;
}

const EFFECTS = { worse: ["bad", "worse"], better: ["good", "better"], other: ["calm", "changed"] };

function card(sample) {
  const [tone, said] = EFFECTS[sample.effect] ?? ["calm", "same"];
  const what = element("p", "what", element("span", `tag ${tone}`, said), element("code", "", sample.task));
  if (sample.slice !== undefined) what.append(element("code", "", sample.slice));
  what.append(element("span", "", "sample ", element("code", "", sample.id)));

  const pair = (title, content) => element("div", "", element("dt", "", title), element("dd", "", content));
  const asked = element(
    "dl", "asked", pair("Prompt", answer(sample.prompt)), pair("Expected", answer(sample.expected)),
  );
  const sides = element("dl", "sides");
  if (sample.after === undefined) {
    sides.append(pair(`Both ${sample.now}`, answer(sample.before)));
  } else {
    const before = words(sample.before);
    const after = words(sample.after);
    const [gone, come] = differing(before, after);
    sides.append(
      pair(`Baseline ${sample.was}`, answer(sample.before, "del", before, gone)),
      pair(`Candidate ${sample.now}`, answer(sample.after, "ins", after, come)),
    );
  }
  return element("li", "sample", what, asked, sides);
}

const SHOWN = {
  all: () => true,
  changed: (sample) => sample.effect !== undefined,
  worse: (sample) => sample.effect === "worse",
  better: (sample) => sample.effect === "better",
};

/** Makes the samples of one adapter searchable. */
function browse(section) {
  const samples = JSON.parse(document.getElementById(section.dataset.samples).textContent);
  const form = section.querySelector("form");
  const status = section.querySelector(".status");
  const list = section.querySelector(".list");
  const pager = section.querySelector(".pager");
  const [previous, next] = pager.querySelectorAll("button");
  let found = samples;
  let page = 0;

  const searched = (sample) =>
    (sample.searched ??= [sample.id, sample.prompt, sample.expected, sample.before, sample.after ?? ""]
      .join("\n")
      .toLowerCase());

  function fill(select, values) {
    for (const value of [...new Set(values)].sort()) {
      const option = element("option", "", value);
      option.value = value;
      select.append(option);
    }
    select.parentElement.hidden = select.options.length < 3;
  }

  function show() {
    const first = page * PER_PAGE;
    const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    const last = Math.min(first + PER_PAGE, found.length);
    const range = pages > 1 ? `${first + 1} to ${last} of ` : "";
    status.textContent = found.length ? `${range}${found.length} of ${samples.length} samples` : "No sample matches.";
    list.replaceChildren(...found.slice(first, last).map(card));
    pager.hidden = pages === 1;
    pager.querySelector("span").textContent = `Page ${page + 1} of ${pages}`;
    previous.disabled = page === 0;
    next.disabled = page === pages - 1;
  }

  function filter() {
    const wanted = form.elements.words.value.toLowerCase();
    const { value: kind } = form.querySelector("input[type=radio]:checked");
    const { task, slice } = form.elements;
    found = samples.filter(
      (sample) =>
        SHOWN[kind](sample) &&
        (!task.value || sample.task === task.value) &&
        (!slice.value || sample.slice === slice.value) &&
        (!wanted || searched(sample).includes(wanted)),
    );
    page = 0;
    show();
  }

  fill(form.elements.task, samples.map((sample) => sample.task));
  fill(form.elements.slice, samples.map((sample) => sample.slice).filter((slice) => slice !== undefined));
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  pager.addEventListener("click", (event) => {
    const step = Number(event.target.dataset.step ?? 0);
    if (!step) return;
    page += step;
    show();
    section.scrollIntoView();
    section.querySelector("h3").focus({ preventScroll: true });
  });
  section.querySelector("h3").tabIndex = -1;
  filter();
}

/** A button between light and dark; what the system prefers holds until it is pressed. */
function themes() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const label = () => {
    button.textContent = now() === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${button.textContent.toLowerCase()} theme`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = now() === "dark" ? "light" : "dark";
    label();
  });
  dark.addEventListener("change", label);
  label();
  button.hidden = false;
}

themes();
for (const section of document.querySelectorAll("[data-samples]")) browse(section);
