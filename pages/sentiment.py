"""Page of text classifiers: a text in; its label, how sure that is, and the most influential words.

What texts and labels are called, the title and the examples are the model's own.
"""

import streamlit as st

from mlapp import answering, loaders
from mlapp.answering import Answered
from mlapp.dashboard import answers, charts, feedback, label_charts, quality, shared
from mlapp.dashboard.markup import literal
from mlapp.dashboard.wording import as_title
from mlapp.errors import InvalidInput
from mlapp.families.contract import Labels
from mlapp.families.sentiment import FEW_KNOWN
from mlapp.manifest import Kind
from mlapp.schema import TEXT

EXAMPLES = 4  # that are offered
LINKED = 500  # characters; the address holds no longer text
LONG = 1000  # tokens; nearly all texts are shorter

shared.begin(__file__)
state = st.session_state


def take_example(text: str) -> None:
    """Enter an example and ask for it."""
    state["review"], state["_example"] = text, text


heading = st.empty()
heading.title("Sentiment", icon=":material/reviews:")
link = shared.read_link()
model = shared.choose(
    Kind("text", "labels"),
    "sentiment",
    "_model_text-classification",
    link,
    loaders.load_sentiment,
)
manifest, labels, name = model.manifest, model.labels, model.manifest.name
report = shared.read_report(model)
wording, examples = model.wording, model.examples[:EXAMPLES]
heading.title(literal(as_title(name)), icon=":material/reviews:")

# Each model has an answer of its own; the entry is the same for all.
texts: dict[str, str | None] = state.setdefault("_texts", {})
text, fresh = texts.get(name), False
if "review" in link:
    state["review"] = link["review"]
    text, fresh = link["review"], True
if example := state.pop("_example", None):
    text, fresh = example, True
if not isinstance(state.get("review"), str):
    state["review"] = ""

predict_tab, many_tab, compare_tab, about_tab = shared.show_tabs(model)

with predict_tab:
    entry, reasons = st.columns([2, 3], gap="large")
    with entry:
        with st.form("_form"):
            st.text_area(
                literal(wording.text.capitalize()),
                key="review",
                height=180,
                placeholder=f"Enter {wording.a_text}",
                persist_state="session",
            )
            button = f"Predict {wording.label}"
            if st.form_submit_button(literal(button), key="predict", type="primary"):
                text, fresh = state["review"], True
        said = st.container()
        if examples:
            st.caption("Or try one of these:")
        with st.container(gap="xsmall"):
            for place, each in enumerate(examples):
                st.button(
                    literal(each),
                    key=f"_example_{place}",
                    on_click=take_example,
                    args=[each],
                    wrap=True,
                )

    # The answer is kept: another tab or a download does not run the network again.
    asked, kept = (text, manifest.version), f"_answered_{name}"
    if text is not None and (fresh or state.get(kept, (None,))[0] != asked):
        try:
            batch = model.check([text])
            state[kept] = (asked, answering.answer(model, batch, "page"))
            fresh = True
            state.pop(f"_explained_{name}", None)
        except InvalidInput as error:
            with said:
                title = f"Please enter {wording.a_text}"
                shared.show_invalid(error, title, {TEXT: wording.text.capitalize()})
            text = None
    texts[name] = text

    if text is not None:
        answered: Answered = state[kept][1]
        given = answered.answers
        assert isinstance(given, Labels)  # as the loader's kind says
        [answer], [own] = given.labels, given.probabilities.tolist()
        known, tokens = 1 - float(given.extras["unknown"][0]), int(given.extras["tokens"][0])
        if fresh:
            shared.write_link(model, {"review": text} if len(text) <= LINKED else {})
            shared.remember(model, answered, {wording.text: text})
        with reasons:
            with st.container(border=True):
                with st.container(horizontal=True, vertical_alignment="bottom"):
                    answers.show_value(literal(wording.label.capitalize()), answer)
                    st.metric(
                        "Probability",
                        answers.as_percent(max(own)),
                        help="Calibrated on texts kept apart for it: of a hundred answers with a"
                        " probability of 80%, about eighty are right.",
                    )
                    if given.unsure[0]:
                        st.badge("Unsure", icon=":material/help:", color="orange")
                if len(labels) == 2:
                    st.progress(
                        own[1], text=literal(f"From {labels[0]}, left, to {labels[1]}, right")
                    )
                else:
                    st.altair_chart(
                        label_charts.probabilities(labels, given.probabilities[0]),
                        alt="The probability of each label",
                    )
            if known < 1 - FEW_KNOWN:
                st.warning(
                    f"The model knows only {known:.0%} of the words. Is it in another language?"
                    if known
                    else "The model knows none of the words, so the answer says little. Is it in"
                    " another language?",
                    title="Hardly any known words",
                )
            if tokens > LONG:
                st.info(
                    f"All {tokens:,} words and punctuation marks were read. Texts are rarely so"
                    " long, and the answer rests on a few of them.",
                    title="A very long text",
                )
            feedback.show(model, answered)
            if f"_explained_{name}" not in state:
                with st.spinner("Finding the most influential words ..."):
                    found = model.reasons(answered.batch)
                    _ = found.explanations  # they are computed when they are first needed
                    state[f"_explained_{name}"] = found
            st.header("Most influential words")
            answers.show_text_reasons(model, state[f"_explained_{name}"])
            st.caption(f"The model knows {known:.0%} of the words.")
    else:
        with reasons:
            st.caption(
                literal(f"Enter {wording.a_text} and press {button}: the answer appears here.")
            )

    percent = st.column_config.NumberColumn(format="percent")
    shown = dict.fromkeys(("probability", "unknown", *model.gives.columns.values()), percent)
    shared.show_history(name, shown | {wording.text: st.column_config.TextColumn(width="medium")})

if many_tab.open:
    from mlapp.dashboard import whole_files  # nothing of it is loaded before

    with many_tab:
        whole_files.show(model)

if compare_tab.open:
    from mlapp.dashboard import versions

    with compare_tab:
        versions.show(model, texts.get(name))

if about_tab.open:
    with about_tab:
        quality.show_metrics(model, quality.of_labels(), size=True)
        quality.show_compared(model, report)
        quality.show_mistakes(labels, report, "texts")
        if curve := report.get("learning_curve"):
            st.header("How it learned")
            st.altair_chart(charts.learning_curve(curve), alt="Accuracy after each epoch")
        shared.show_origin(manifest)
