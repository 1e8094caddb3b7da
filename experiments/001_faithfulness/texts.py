"""Short excerpts of English prose, all in the public domain."""

TEXTS = (
  # Charles Darwin, On the Origin of Species (1859), introduction.
  "When on board H.M.S. 'Beagle,' as naturalist, I was much struck with "
  "certain facts in the distribution of the inhabitants of South America, and "
  "in the geological relations of the present to the past inhabitants of that "
  "continent. These facts seemed to me to throw some light on the origin of "
  "species.",
  # Abraham Lincoln, Second Inaugural Address (1865).
  "On the occasion corresponding to this four years ago all thoughts were "
  "anxiously directed to an impending civil war. All dreaded it, all sought to "
  "avert it. Both parties deprecated war, but one of them would make war "
  "rather than let the nation survive, and the other would accept war rather "
  "than let it perish, and the war came.",
  # Jane Austen, Pride and Prejudice (1813), chapter 1.
  "However little known the feelings or views of such a man may be on his "
  "first entering a neighbourhood, this truth is so well fixed in the minds "
  "of the surrounding families, that he is considered as the rightful "
  "property of some one or other of their daughters.",
  # Herman Melville, Moby-Dick (1851), chapter 1.
  "Some years ago, never mind how long precisely, having little or no money "
  "in my purse, and nothing particular to interest me on shore, I thought I "
  "would sail about a little and see the watery part of the world. It is a "
  "way I have of driving off the spleen and regulating the circulation.",
  # Lewis Carroll, Alice's Adventures in Wonderland (1865), chapter 1.
  "Alice was beginning to get very tired of sitting by her sister on the "
  "bank, and of having nothing to do: once or twice she had peeped into the "
  "book her sister was reading, but it had no pictures or conversations in "
  "it, and what is the use of a book, thought Alice, without pictures or "
  "conversations?",
  # Henry David Thoreau, Walden (1854), chapter 2.
  "I went to the woods because I wished to live deliberately, to front only "
  "the essential facts of life, and see if I could not learn what it had to "
  "teach, and not, when I came to die, discover that I had not lived.",
  # The Declaration of Independence of the United States (1776).
  "When in the course of human events, it becomes necessary for one people to "
  "dissolve the political bands which have connected them with another, and "
  "to assume among the powers of the earth, the separate and equal station to "
  "which the laws of nature entitle them, a decent respect to the opinions of "
  "mankind requires that they should declare the causes which impel them to "
  "the separation.",
  # Michael Faraday, The Chemical History of a Candle (1861), lecture 1.
  "There is no better, there is no more open door by which you can enter into "
  "the study of natural philosophy, than by considering the physical phenomena "
  "of a candle. I trust, therefore, I shall not disappoint you in choosing "
  "this for my subject rather than any newer topic, which could not be better, "
  "were it even so good.",
  # Mary Shelley, Frankenstein (1818), chapter 5.
  "It was on a dreary night of November that I beheld the accomplishment of my "
  "toils. With an anxiety that almost amounted to agony, I collected the "
  "instruments of life around me, that I might infuse a spark of being into "
  "the lifeless thing that lay at my feet.",
  # Arthur Conan Doyle, The Adventures of Sherlock Holmes (1892), story 1.
  "To Sherlock Holmes she is always the woman. I have seldom heard him mention "
  "her under any other name. In his eyes she eclipses and predominates the "
  "whole of her sex. It was not that he felt any emotion akin to love for "
  "Irene Adler.",
)
