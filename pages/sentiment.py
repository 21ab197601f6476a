"""Sentiment page: a review in; its label, how sure that is, and the words that decided out."""

from typing import Any

import pandas as pd
import streamlit as st

from mlapp import answering, loaders
from mlapp.answering import Answered
from mlapp.dashboard import charts, markup, shared
from mlapp.dashboard.markup import literal
from mlapp.errors import InvalidInput
from mlapp.families.contract import Explanation, Labels
from mlapp.families.sentiment import FEW_KNOWN
from mlapp.manifest import Kind

EXAMPLES = (
    "A quiet, generous film. I did not want it to end.",
    "Two hours of noise, and not one idea.",
    "Not bad at all: better than its poster, anyway.",
    "Movie was pathetic",
)
LINKED = 500  # characters; the address holds no longer text
LONG = 1000  # tokens; nearly all reviews are shorter

shared.begin(__file__)
state = st.session_state


def forget_answer() -> None:
    """Let another model begin without an answer."""
    state.pop("_text", None)


def take_example(text: str) -> None:
    """Enter an example and ask for it."""
    state["review"], state["_example"] = text, text


def as_percent(probability: float) -> str:
    """Write a probability without claiming certainty."""
    return "over 99%" if probability > 0.99 else f"{probability:.0%}"


st.title("Sentiment", icon=":material/reviews:")
link = shared.read_link()
name = shared.choose_model(
    Kind("text", "labels"), "sentiment", "_model_text-classification", link, forget_answer
)
model = shared.open_model(name, loaders.load_sentiment)
manifest, labels = model.manifest, model.labels

text, fresh = state.get("_text"), False
if "review" in link:
    state["review"] = link["review"]
    text, fresh = link["review"], True
if example := state.pop("_example", None):
    text, fresh = example, True
if not isinstance(state.get("review"), str):
    state["review"] = ""

predict_tab, many_tab, about_tab = st.tabs(
    ["Predict", "Many rows", "About this model"], key=f"_tabs_{name}", on_change="rerun"
)

with predict_tab:
    entry, reasons = st.columns([2, 3], gap="large")
    with entry:
        with st.form("_form"):
            st.text_area(
                "Review",
                key="review",
                height=180,
                placeholder="What did you think of the film?",
                persist_state="session",
            )
            if st.form_submit_button("Predict sentiment", key="predict", type="primary"):
                text, fresh = state["review"], True
        st.caption("Or try one of these:")
        with st.container(gap="xsmall"):
            for place, each in enumerate(EXAMPLES):
                st.button(
                    each, key=f"_example_{place}", on_click=take_example, args=[each], wrap=True
                )

    # The answer is kept: another tab or a download does not run the network again.
    asked = (text, name, manifest.version)
    if text is not None and state.get("_answered", (None,))[0] != asked:
        try:
            batch = model.check([text])
            state["_answered"] = (asked, answering.answer(model, batch, "page"))
            state.pop("_explained", None)
        except InvalidInput as error:
            with entry:
                shared.show_invalid(error, "Please enter a review")
            text = None
    state["_text"] = text

    if text is not None:
        answered: Answered = state["_answered"][1]
        answers = answered.answers
        assert isinstance(answers, Labels)  # as the loader's kind says
        [answer], own = answers.labels, answers.probabilities[0].tolist()
        probability, known = max(own), 1 - float(answers.extras["unknown"][0])
        tokens = int(answers.extras["tokens"][0])
        if fresh:
            written = {"review": text} if len(text) <= LINKED else {}
            shared.write_link(written | {"_model": name})
            shared.remember(model, answered, {"review": text})
        with reasons:
            with st.container(border=True):
                with st.container(horizontal=True, vertical_alignment="bottom"):
                    st.metric("Sentiment", literal(answer))
                    st.metric(
                        "Probability",
                        as_percent(probability),
                        help="Calibrated on texts of its own: of a hundred answers with a"
                        " probability of 80%, about eighty are right.",
                    )
                    if answers.unsure[0]:
                        st.badge("Unsure", icon=":material/help:", color="orange")
                if len(labels) == 2:
                    share = own[1]
                    st.progress(
                        share, text=literal(f"From {labels[0]}, left, to {labels[1]}, right")
                    )
            if known < 1 - FEW_KNOWN:
                st.warning(
                    f"The model knows only {known:.0%} of the words. Is it in another language?",
                    title="Hardly any known words",
                )
            if tokens > LONG:
                st.info(
                    f"All {tokens:,} words and marks were read; reviews are rarely so"
                    " long, and the answer rests on a few of them.",
                    title="A very long text",
                )
            if "_explained" not in state:
                with st.spinner("Finding the words that decided ..."):
                    state["_explained"] = model.reasons(answered.batch).explanations[0]
            explanation: Explanation = state["_explained"]
            other = labels[0] if len(labels) == 2 else "another label"
            st.subheader("The words that decided")
            st.html(markup.mark(text, explanation.spans))
            st.caption(
                literal(
                    f"A solid line speaks for {explanation.label}, a dashed one for {other}; the"
                    f" stronger, the more. The model knows {known:.0%} of the words."
                )
            )
            st.altair_chart(
                charts.words(text, explanation, other),
                alt=f"The words that weigh most for {explanation.label} and against it",
            )
            st.caption(
                literal(
                    f"{model.scorer.method} The weights of all words and the bias,"
                    f" {explanation.bias:+.2f}, sum"
                    f" exactly to the logit of {explanation.label}, {explanation.logit:+.2f}."
                )
            )
    else:
        with reasons:
            st.caption("Enter a review and press Predict sentiment: the answer appears here.")

    percent = st.column_config.NumberColumn(format="percent")
    shown = dict.fromkeys(("probability", "unknown", *model.gives.columns.values()), percent)
    shared.show_history(name, shown | {"review": st.column_config.TextColumn(width="medium")})

if many_tab.open:
    from mlapp.dashboard import whole_files  # nothing of it is loaded before

    with many_tab:
        whole_files.show(model)

if about_tab.open:
    with about_tab:
        metrics = {key: float(str(value)) for key, value in manifest.metrics.items()}
        report: dict[str, Any] = model.report
        st.subheader("How good it is")
        st.caption(f"On {metrics['held_out']:,.0f} held-out texts, which nothing was fitted on.")
        with st.grid(4, min_column_width=170):
            st.metric(
                "Accuracy",
                f"{metrics['accuracy']:.1%}",
                border=True,
                help="Share of texts that get their own label.",
            )
            st.metric(
                "Calibration error",
                f"{metrics['ece']:.1%}",
                border=True,
                help="How far the probabilities are from how often they are right, on average.",
            )
            st.metric(
                "Log loss",
                f"{metrics['log_loss']:.3f}",
                border=True,
                help="Punishes being sure and wrong; 0 is perfect, 0.693 is a coin's.",
            )
            st.metric("Size", f"{model.size / 1e6:.1f} MB", border=True, help="All its files.")
        left, right = st.columns(2)
        with left:
            st.subheader("What it mixes up")
            st.altair_chart(
                charts.confusion(list(labels), report["confusion"]),
                alt="Held-out texts by true and predicted label",
            )
            st.dataframe(
                pd.DataFrame(report["per_class"]),
                hide_index=True,
                column_config=dict.fromkeys(("precision", "recall"), percent),
                alt="Precision and recall of each label",
            )
            st.caption(
                "Precision: of the texts given a label, the share that has it. Recall: of the texts"
                " that have it, the share given it."
            )
        with right:
            st.subheader("Whether it knows when it is sure")
            st.altair_chart(
                charts.reliability(report["reliability"]),
                alt="How often predictions are right, by their probability",
            )
            st.caption("On the dashed line, a probability of 80% is right eight times in ten.")
            st.subheader("How it learned")
            st.altair_chart(
                charts.learning_curve(report["learning_curve"]), alt="Accuracy after each epoch"
            )
        shared.show_origin(manifest, manifest.describe_use())
